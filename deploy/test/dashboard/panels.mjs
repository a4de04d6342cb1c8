// Draws panels as HTML and SVG. Sizes, spaces and colors are Grafana's as far as they show what a panel says.
import { scaleLinear, scaleUtc } from 'd3-scale';
import { area, curveLinear, curveStepAfter, line } from 'd3-shape';

import { grafana, theme } from './grafana.mjs';

const { FieldType, formattedValueToString, getFieldDisplayName } = grafana;

export const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);

// widthOf is about how wide a text is: Chromium lays out the rest, but a chart must know what its labels take.
const widthOf = (text, size) => Math.ceil([...String(text)].length * size * 0.58);
const curves = { linear: curveLinear, stepAfter: curveStepAfter };
const axisSize = 12;
const edge = 12; // between a chart and what is right of it
const ellipsis = (text, most) => ([...text].length > most ? `${[...text].slice(0, most - 1).join('')}…` : text);

function nothing(panel) {
  return `<p class="nothing">${escape(panel.fieldConfig.defaults.noValue ?? 'No data')}</p>`;
}

// seriesOf are the series of a panel, with null where one has a gap.
function seriesOf(frames, times) {
  return frames.flatMap((frame) => frame.fields.filter((field) => field.type === FieldType.number).map((field) => {
    const at = new Map(frame.fields.find((other) => other.type === FieldType.time).values.map((time, i) => [time, field.values[i]]));
    return { field, name: getFieldDisplayName(field, frame, frames), values: times.map((time) => (Number.isFinite(at.get(time)) ? at.get(time) : null)) };
  }));
}

// legendOf returns the legend and the room that it takes: at the bottom no more than about a third of the height.
function legendOf({ legend }, items, width, height) {
  if (!legend.showLegend || items.length === 0) return { html: '', width: 0, height: 0 };
  const key = ({ color, name }) => `<i style="background:${color}"></i>${escape(name)}`;
  const calcs = legend.displayMode === 'table' ? legend.calcs ?? [] : [];
  let html;
  let high;
  if (legend.displayMode === 'table') {
    const titles = calcs.map((calc) => grafana.fieldReducers.get(calc).name);
    const rows = items.map((item) => ({ ...item, values: calcs.map((calc) => item.field.display(grafana.reduceField({ field: item.field, reducers: [calc] })[calc])) }));
    const by = titles.indexOf(legend.sortBy);
    if (legend.sortBy && by < 0) throw new Error(`the legend is sorted by ${legend.sortBy}, which it does not show`);
    if (by >= 0) rows.sort((a, b) => (a.values[by].numeric - b.values[by].numeric) * (legend.sortDesc ? -1 : 1));
    html = `<table><thead><tr><th class="name">Name</th>${titles.map((title, i) => `<th>${escape(title)}${i === by ? (legend.sortDesc ? ' ↓' : ' ↑') : ''}</th>`).join('')}</tr></thead><tbody>${
      rows.map((row) => `<tr><td class="name">${key(row)}</td>${row.values.map((value) => `<td>${escape(formattedValueToString(value))}</td>`).join('')}</tr>`).join('')}</tbody></table>`;
    high = 26 + items.length * 25;
  } else {
    html = `<ul>${items.map((item) => `<li>${key(item)}</li>`).join('')}</ul>`;
    let lines = 1;
    let used = 0;
    for (const { name } of items) {
      const one = widthOf(name, 12) + 34;
      if (used > 0 && used + one > width) [lines, used] = [lines + 1, 0];
      used += one;
    }
    high = lines * 22 + 4;
  }
  if (legend.placement === 'right') {
    const wide = Math.min(legend.width ?? Math.max(...items.map(({ name }) => widthOf(name, 12))) + 40 + calcs.length * 80, Math.floor(width * 0.6));
    return { html: `<div class="legend" style="right:0;top:0;width:${wide}px;height:${height}px">${html}</div>`, width: wide + 8, height: 0 };
  }
  const bounded = Math.min(high, Math.floor(height * 0.35));
  return { html: `<div class="legend" style="left:0;bottom:0;width:${width}px;height:${bounded}px">${html}</div>`, width: 0, height: bounded + 4 };
}

function timeAxis({ from, to }, left, right, top, bottom) {
  const x = scaleUtc().domain([from * 1000, to * 1000]).range([left, right]);
  const ticks = x.ticks(Math.max(2, Math.floor((right - left) / 45)));
  const format = ticks.length > 1 && ticks[1] - ticks[0] < 60000 ? 'HH:mm:ss' : 'HH:mm';
  const wide = widthOf(format, axisSize);
  // As many texts as there is room for.
  const every = Math.ceil((ticks.length * (wide + 8)) / (right - left));
  const html = ticks.map((tick, i) => {
    const at = x(tick);
    const text = i % every > 0 || at + wide / 2 > right + edge ? '' : `<text x="${at}" y="${bottom + 17}" text-anchor="middle">${grafana.dateTimeFormat(tick, { timeZone: 'utc', format })}</text>`;
    return `<line class="grid" x1="${at}" x2="${at}" y1="${top}" y2="${bottom}"/>${text}`;
  }).join('');
  return { x, html };
}

function valueAxis(series, shown, height) {
  const { min, max } = series[0].field.config;
  const least = min ?? Math.min(...shown);
  let most = max ?? Math.max(...shown);
  if (most <= least) most = least + (Math.abs(least) || 1);
  const count = Math.max(2, Math.floor(height / 40));
  const y = scaleLinear().domain([least, most]).nice(count);
  if (max !== undefined) y.domain([y.domain()[0], max]);
  let ticks = y.ticks(count);
  // Bytes are counted in powers of two.
  if (series[0].field.config.unit === 'bytes') {
    const step = 2 ** Math.ceil(Math.log2((most - least) / count));
    y.domain([Math.floor(least / step) * step, Math.ceil(most / step) * step]);
    ticks = Array.from({ length: (y.domain()[1] - y.domain()[0]) / step + 1 }, (_, i) => y.domain()[0] + i * step);
  }
  // A number without decimals has no ticks between whole ones.
  const { decimals: shownDecimals } = series[0].field.config;
  if (shownDecimals !== undefined) ticks = ticks.filter((at) => Number(at.toFixed(shownDecimals)) === at);
  const decimals = grafana.guessDecimals(grafana.roundDecimals(ticks[1] - ticks[0], 15));
  return { y, ticks: ticks.map((at) => ({ at, text: formattedValueToString(series[0].field.display(at, decimals > 0 ? decimals : undefined)) })) };
}

function timeseries(panel, frames, { width, height, range, times }) {
  const series = seriesOf(frames, times);
  if (series.length === 0) return nothing(panel);
  if (new Set(series.map(({ field }) => field.config.unit)).size > 1) throw new Error(`panel ${panel.id} "${panel.title}": series of several units need several axes, which are not known`);
  const items = series.map(({ field, name }) => ({ field, name, color: grafana.getFieldSeriesColor(field, theme).color }));
  const legend = legendOf(panel.options, items, width, height);
  const stacked = series[0].field.config.custom.stacking.mode === 'normal';

  const below = times.map(() => 0);
  const lines = series.map(({ values }) => times.map((time, i) => {
    const value = values[i];
    if (!stacked || value === null) return { time, from: 0, to: value };
    const from = below[i];
    below[i] += value;
    return { time, from, to: below[i] };
  }));
  const shown = lines.flat().map(({ to }) => to).filter((value) => value !== null);
  if (shown.length === 0) return nothing(panel);

  const [top, bottom] = [8, height - legend.height - 24];
  const { y, ticks } = valueAxis(series, shown, bottom - top);
  const left = Math.max(...ticks.map(({ text }) => widthOf(text, axisSize))) + 10;
  const right = width - legend.width - edge;
  const { x, html: axis } = timeAxis(range, left, right, top, bottom);
  y.range([bottom, top]);
  const { custom } = series[0].field.config;
  const draw = (shape) => shape.defined(({ to }) => to !== null).curve(curves[custom.lineInterpolation]).x(({ time }) => x(time));
  const stroke = draw(line()).y(({ to }) => y(to));
  const fill = draw(area()).y0(({ from }) => y(Math.max(from, y.domain()[0]))).y1(({ to }) => y(to));
  const grid = ticks.map(({ at, text }) => `<line class="grid" x1="${left}" x2="${right}" y1="${y(at)}" y2="${y(at)}"/><text x="${left - 6}" y="${y(at) + 4}" text-anchor="end">${escape(text)}</text>`).join('');
  const paths = lines.map((points, i) => {
    const filled = custom.fillOpacity > 0 ? `<path class="fill" d="${fill(points)}" fill="${items[i].color}" fill-opacity="${custom.fillOpacity / 100}"/>` : '';
    return `${filled}<path class="line" d="${stroke(points)}" stroke="${items[i].color}" stroke-width="${custom.lineWidth}"/>`;
  }).join('');
  return `<svg width="${width - legend.width}" height="${height - legend.height}">${axis}${grid}${paths}</svg>${legend.html}`;
}

function stateTimeline(panel, frames, { width, height, range, times }) {
  const series = seriesOf(frames, times);
  if (series.length === 0) return nothing(panel);
  const states = new Map();
  for (const { field } of series) {
    for (const state of field.values.map((value) => field.display(value))) states.set(state.text, state.color);
  }
  const legend = legendOf(panel.options, [...states].map(([name, color]) => ({ name, color })), width, height);
  const most = 40;
  const left = Math.max(...series.map(({ name }) => widthOf(ellipsis(name, most), axisSize))) + 10;
  const [right, top, bottom] = [width - legend.width - edge, 4, height - legend.height - 24];
  const { x, html: axis } = timeAxis(range, left, right, top, bottom);
  const high = (bottom - top) / series.length;
  const rows = series.map(({ field, name, values }, row) => {
    const middle = top + (row + 0.5) * high;
    const boxes = [];
    let open = null;
    const end = (until) => {
      if (open) boxes.push(`<rect x="${x(open.since)}" y="${middle - (high * panel.options.rowHeight) / 2}" width="${Math.max(1, x(until) - x(open.since))}" height="${high * panel.options.rowHeight}" fill="${open.color}" fill-opacity="${field.config.custom.fillOpacity / 100}"/>`);
      open = null;
    };
    times.forEach((time, i) => {
      const state = values[i] === null ? null : field.display(values[i]);
      if (open && open.text === state?.text) return;
      end(time);
      if (state) open = { since: time, text: state.text, color: state.color };
    });
    end(range.to * 1000);
    return `<g class="row"><text x="${left - 6}" y="${middle + 4}" text-anchor="end">${escape(ellipsis(name, most))}</text>${boxes.join('')}</g>`;
  }).join('');
  return `<svg width="${width - legend.width}" height="${height - legend.height}">${axis}${rows}</svg>${legend.html}`;
}

function stat(panel, frames, { width, height }) {
  const { reduceOptions, textMode } = panel.options;
  const values = grafana.getFieldDisplayValues({
    data: frames, fieldConfig: panel.fieldConfig, reduceOptions, replaceVariables: (text) => text, theme, timeZone: 'utc',
  });
  const each = height / values.length;
  return values.map(({ display }) => {
    // A name is shown beside the value where there are several.
    const name = textMode === 'auto' && values.length > 1 ? `<small>${escape(display.title)}</small>` : '';
    const text = textMode === 'name' ? display.title : display.text;
    const suffix = textMode === 'name' ? '' : display.suffix ?? '';
    const size = Math.floor(Math.min(each * 0.6, (width * 0.9) / Math.max(1, widthOf(text + suffix, 1.1))));
    return `<div class="value" style="height:${each}px;color:${display.color};font-size:${size}px">${name}<b>${escape((display.prefix ?? '') + text)}<u>${escape(suffix)}</u></b></div>`;
  }).join('');
}

function table(panel, frames, { width, height }) {
  let frame = frames[panel.options.frameIndex];
  if (!frame || frame.length === 0) return nothing(panel);
  const names = frame.fields.map((field) => getFieldDisplayName(field, frame, frames));
  const [sort] = panel.options.sortBy;
  const by = sort ? names.indexOf(sort.displayName) : -1;
  if (sort && by < 0) throw new Error(`panel ${panel.id} "${panel.title}" is sorted by ${sort.displayName}, which it does not show`);
  if (by >= 0) frame = grafana.sortDataFrame(frame, by, sort.desc);
  const aligned = (field) => (field.type === FieldType.number ? ' class="number"' : '');
  const cell = (field, row) => {
    const display = field.display(field.values[row]);
    const style = field.config.custom.cellOptions.type === 'color-text' ? ` style="color:${display.color}"` : '';
    return `<td${aligned(field)}${style}>${escape(formattedValueToString(display))}</td>`;
  };
  const columns = frame.fields.map((field) => `<col${field.config.custom.width ? ` style="width:${field.config.custom.width}px"` : ''}>`).join('');
  const head = frame.fields.map((field, i) => `<th${aligned(field)}>${escape(names[i])}${i === by ? (sort.desc ? ' ↓' : ' ↑') : ''}</th>`).join('');
  const rows = Array.from({ length: frame.length }, (_, row) => `<tr class="line">${frame.fields.map((field) => cell(field, row)).join('')}</tr>`).join('');
  return `<div class="table" style="width:${width}px;height:${height}px"><table><colgroup>${columns}</colgroup><thead><tr>${head}</tr></thead><tbody>${rows}</tbody></table></div>`;
}

export const draw = { stat, timeseries, 'state-timeline': stateTimeline, table };

const { colors } = theme;
export const style = `
* { box-sizing: border-box; margin: 0; }
body { background: ${colors.background.canvas}; color: ${colors.text.primary}; font: 14px/1.4 Inter, sans-serif; overflow: hidden; }
header { display: flex; align-items: center; gap: 8px; padding: 12px 16px 0; height: 48px; font-size: 12px; }
header h1 { font-size: 18px; font-weight: 500; margin-right: auto; }
header span { border: 1px solid ${colors.border.medium}; border-radius: 2px; padding: 5px 8px; background: ${colors.background.primary}; }
header span b { color: ${colors.text.secondary}; font-weight: 500; margin-right: 8px; }
h2 { font-size: 16px; font-weight: 500; padding: 12px 16px 0; height: 44px; }
h2::before { content: '⌄'; margin-right: 8px; position: relative; top: -3px; }
main { position: relative; }
section { position: absolute; background: ${colors.background.primary}; border: 1px solid ${colors.border.weak}; border-radius: 2px; overflow: hidden; }
section h3 { font-size: 14px; font-weight: 500; height: 32px; padding: 6px 8px; white-space: nowrap; }
section h3 i { color: ${colors.text.secondary}; font: 400 12px Inter; border: 1px solid; border-radius: 50%; display: inline-block; width: 15px; height: 15px; line-height: 13px; text-align: center; margin-left: 6px; }
.body { position: absolute; }
.nothing { position: absolute; inset: 0; display: flex; align-items: center; justify-content: center; color: ${colors.text.secondary}; font-size: 18px; }
svg { display: block; }
svg text { fill: ${colors.text.primary}; font-size: ${axisSize}px; }
.grid { stroke: ${colors.border.weak}; shape-rendering: crispEdges; }
.line { fill: none; stroke-linejoin: round; }
.legend { position: absolute; overflow: hidden; font-size: 12px; }
.legend ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; }
.legend li { height: 22px; margin-right: 14px; white-space: nowrap; }
.legend i { display: inline-block; width: 14px; height: 4px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.legend table { width: 100%; border-collapse: collapse; }
.legend th { color: ${colors.primary.text}; font-weight: 500; text-align: right; height: 26px; }
.legend td { border-top: 1px solid ${colors.border.weak}; height: 25px; text-align: right; white-space: nowrap; }
.legend .name { text-align: left; width: 100%; max-width: 0; overflow: hidden; text-overflow: ellipsis; }
.legend td:not(.name), .legend th:not(.name) { padding-left: 12px; white-space: nowrap; }
.value { display: flex; align-items: center; justify-content: center; line-height: 1; gap: .4em; }
.value b { font-weight: 500; } .value u { text-decoration: none; font-size: .7em; } .value small { font-size: 14px; color: ${colors.text.primary}; }
.table { overflow: hidden; }
.table table { width: 100%; table-layout: fixed; border-collapse: collapse; font-size: 14px; }
.table th { color: ${colors.primary.text}; font-weight: 500; text-align: left; height: 36px; padding: 6px; }
.table td { height: 36px; padding: 6px; border-top: 1px solid ${colors.border.weak}; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.table .number { text-align: right; }
footer { padding: 8px 16px 0; font-size: 12px; color: ${colors.text.secondary}; height: 30px; }
`;
