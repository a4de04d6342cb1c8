package burrowreceiver

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// plot draws, for the whole group, the truth, the answers of notifications alone, and what stands on the page with polling.
func plot(s *simScenario, alone, polled *simRun) []byte {
	const width, height, left, right, top, bottom = 800, 320, 70, 20, 60, 50
	answers := of(true, alone.fresh)
	highest := 1.0
	for _, a := range polled.standing {
		highest = max(highest, a.truth, a.answer)
	}
	for _, a := range answers {
		highest = max(highest, a.answer)
	}
	step := math.Pow(10, math.Floor(math.Log10(highest)))
	for _, factor := range []float64{5, 2} {
		if highest/step*factor <= 10 { // not more than ten lines
			step /= factor
			break
		}
	}
	highest = math.Ceil(highest/step) * step
	x := func(second float64) float64 { return left + second/simLength*(width-left-right) }
	y := func(lag float64) float64 { return height - bottom - lag/highest*(height-top-bottom) }

	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#222">`+"\n", width, height)
	fmt.Fprintf(&b, `<title>Time lag, %s</title>`+"\n", s.name)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="%d" y="18" font-size="14" font-weight="bold">%s</text>`+"\n", left, s.name)
	for lag := 0.0; lag <= highest; lag += step {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", left, y(lag), width-right, left-6, y(lag)+4, lag)
	}
	for second := 0.0; second <= simLength; second += 600 {
		fmt.Fprintf(&b, `<path d="M%.1f %dv5" stroke="#222"/><text x="%.1f" y="%d" text-anchor="middle">%g</text>`+"\n", x(second), height-bottom, x(second), height-bottom+18, second/60)
	}
	fmt.Fprintf(&b, `<path d="M%d %dV%dH%d" fill="none" stroke="#222"/>`+"\n", left, top, height-bottom, width-right)
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">time (minutes)</text>`+"\n", (left+width-right)/2, height-10)
	fmt.Fprintf(&b, `<text transform="translate(16 %d) rotate(-90)" text-anchor="middle">time lag (seconds)</text>`+"\n", (top+height-bottom)/2)

	const each = 10 // seconds
	var truth, page strings.Builder
	truthOn, pageOn := false, false
	for i, a := range polled.standing {
		if i%each != 0 {
			continue
		}
		truthOn = lineTo(&truth, truthOn, x(a.at), y(a.truth))
		if pageOn = pageOn && !a.absent; !a.absent {
			pageOn = lineTo(&page, pageOn, x(a.at), y(a.answer))
		}
	}
	const truthStyle, pageStyle = `stroke="#999" stroke-width="3"`, `stroke="#047857" stroke-width="1.2"`
	fmt.Fprintf(&b, `<path fill="none" %s d="%s"/>`+"\n", truthStyle, truth.String())
	fmt.Fprintf(&b, `<path fill="none" %s d="%s"/>`+"\n", pageStyle, page.String())
	known, bound := `fill="#c2410c"`, `fill="#fff" stroke="#1d4ed8" stroke-width="1.5"`
	for _, a := range answers {
		style := known
		if a.bound {
			style = bound
		}
		if !a.absent {
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="2.5" %s/>`+"\n", x(a.at), y(a.answer), style)
		}
	}
	fmt.Fprintf(&b, `<path d="M%d 36h24" %s/><text x="%d" y="40">truth</text>`+"\n", left, truthStyle, left+30)
	fmt.Fprintf(&b, `<path d="M%d 36h24" %s/><text x="%d" y="40">polled every 10 s, as it stands</text>`+"\n", left+80, pageStyle, left+110)
	fmt.Fprintf(&b, `<circle cx="%d" cy="36" r="3" %s/><text x="%d" y="40">notifications alone, as they come</text>`+"\n", left+300, known, left+310)
	fmt.Fprintf(&b, `<circle cx="%d" cy="36" r="3" %s/><text x="%d" y="40">the same, a lower bound</text>`+"\n", left+530, bound, left+540)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// lineTo goes on with a line, or begins one.
func lineTo(b *strings.Builder, on bool, x, y float64) bool {
	verb := "L"
	if !on {
		verb = "M"
	}
	fmt.Fprintf(b, "%s%.1f %.1f", verb, x, y)
	return true
}
