// Draws a dashboard, a page of HTML for each of its rows, from what a Prometheus answers. It is not Grafana: the layout and the
// charts are drawn here. Names, units, mappings, thresholds, colors and transformations are worked out by Grafana's library.
//
//   node draw.mjs --dashboard FILE --prometheus URL --from SECONDS --to SECONDS --scrape SECONDS --out FOLDER
//   node draw.mjs --check FILE...     says what of a dashboard can't be drawn
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { readPanel } from './data.mjs';
import { grafana } from './grafana.mjs';
import { problems } from './known.mjs';
import { draw, escape, style } from './panels.mjs';

const width = 1280;
// Grafana's grid: 24 columns, rows of 30 px, 8 px between panels.
const [margin, gap, rowHeight] = [16, 8, 30];
const column = (width - 2 * margin - 23 * gap) / 24;
const across = (units) => units * (column + gap) - gap;
const down = (units) => units * (rowHeight + gap) - gap;

function font(weight, script, range) {
  const file = readFileSync(new URL(`node_modules/@fontsource/inter/files/inter-${script}-${weight}-normal.woff2`, import.meta.url));
  return `@font-face { font-family: Inter; font-weight: ${weight}; unicode-range: ${range}; src: url(data:font/woff2;base64,${file.toString('base64')}) }`;
}
const fonts = [400, 500].flatMap((weight) => [font(weight, 'latin', 'U+0-2FF, U+2000-21FF'), font(weight, 'cyrillic', 'U+400-4FF')]).join('\n');

// rowsOf are the rows with the panels below each.
function rowsOf(dashboard) {
  const rows = [];
  for (const panel of [...dashboard.panels].sort((a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x)) {
    if (panel.type === 'row') rows.push({ row: panel, panels: [] });
    else rows.at(-1).panels.push(panel);
  }
  return rows;
}

async function panelHTML(dashboard, panel, top, options) {
  const [x, y, w, h] = [margin + panel.gridPos.x * (column + gap), (panel.gridPos.y - top) * (rowHeight + gap), across(panel.gridPos.w), down(panel.gridPos.h)];
  const body = { width: Math.floor(w) - 18, height: h - 42, range: options };
  const { frames, times } = await readPanel(dashboard, panel, { ...options, points: body.width });
  const html = draw[panel.type](panel, frames, { ...body, times });
  const info = panel.description ? '<i>i</i>' : '';
  return {
    bottom: y + h,
    id: panel.id,
    html: `<section id="panel-${panel.id}" style="left:${x}px;top:${y}px;width:${w}px;height:${h}px"><h3>${escape(panel.title)}${info}</h3>`
      + `<div class="body" style="left:8px;top:32px;width:${body.width}px;height:${body.height}px">${html}</div></section>\n`,
  };
}

function headOf(dashboard, { from, to }) {
  const chosen = dashboard.templating.list.map(({ label, current }) => `<span><b>${escape(label)}</b>${escape([current.text].flat().join(', '))}</span>`).join('');
  const time = (at) => grafana.dateTimeFormat(at * 1000, { timeZone: 'utc', format: 'HH:mm:ss' });
  return `<header><h1>${escape(dashboard.title)}</h1>${chosen}<span>${time(from)} to ${time(to)} UTC</span></header>`;
}

async function drawAll(dashboard, out, options) {
  const told = [];
  for (const [i, { row, panels }] of rowsOf(dashboard).entries()) {
    const drawn = await Promise.all(panels.map((panel) => panelHTML(dashboard, panel, row.gridPos.y + row.gridPos.h, options)));
    const head = i === 0 ? headOf(dashboard, options) : '';
    const main = Math.max(...drawn.map(({ bottom }) => bottom));
    const file = `${row.title.toLowerCase().replace(/\W+/g, '-')}.html`;
    writeFileSync(join(out, file), `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${escape(row.title)}</title><style>${fonts}${style}</style></head>
<body>${head}<h2>${escape(row.title)}</h2>
<main style="height:${main}px">
${drawn.map(({ html }) => html).join('')}</main>
<footer>Not Grafana's own rendering: drawn from deploy/grafana/karrot.json and the answers of a Prometheus that scraped Karrot during a replay of recorded traffic.</footer>
</body></html>
`);
    told.push({ row: row.title, file, width, height: (head ? 48 : 0) + 44 + main + 38, panels: drawn.map(({ id }) => id) });
  }
  return told;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    check: { type: 'boolean' }, dashboard: { type: 'string' }, prometheus: { type: 'string' },
    from: { type: 'string' }, to: { type: 'string' }, scrape: { type: 'string' }, out: { type: 'string' },
  },
});
const read = (file) => JSON.parse(readFileSync(file, 'utf8'));
try {
  if (values.check) {
    console.log(JSON.stringify(Object.fromEntries(positionals.map((file) => [file, problems(read(file))]))));
  } else {
    const dashboard = read(values.dashboard);
    const found = problems(dashboard);
    if (found.length > 0) throw new Error(`${values.dashboard} can't be drawn:\n${found.join('\n')}`);
    const { prometheus, out } = values;
    const [from, to, scrape] = [values.from, values.to, values.scrape].map(Number);
    console.log(JSON.stringify(await drawAll(dashboard, out, { prometheus, from, to, scrape })));
  }
} catch (error) {
  console.error(`draw: ${error.message}`);
  process.exitCode = 1;
}
