// Asks Prometheus what a panel asks, as Grafana does, and gives the fields of the panel their names, units and colors.
import { grafana, theme } from './grafana.mjs';

const { FieldType } = grafana;

async function ask(prometheus, path, parameters) {
  const response = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const answer = await response.json();
  if (answer.status !== 'success') throw new Error(`${path} ${JSON.stringify(parameters)}: ${answer.error}`);
  return answer.data;
}

// interpolate puts in what is chosen: everything.
function interpolate(expr, variables) {
  return expr.replace(/\$\{?(\w+)\}?/g, (_, name) => {
    if (!(name in variables)) throw new Error(`${expr}: there is no variable ${name}`);
    return variables[name];
  });
}

// Grafana's name of a series: the legend of the query, or what Prometheus calls it.
function seriesName(target, labels) {
  if (target.legendFormat) return target.legendFormat.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');
  const written = Object.entries(labels).filter(([label]) => label !== '__name__').map(([label, value]) => `${label}="${value}"`);
  return `${labels.__name__ ?? ''}${written.length > 0 ? `{${written.join(', ')}}` : ''}` || target.expr;
}

function seriesFrame(target, labels, times, values) {
  return grafana.toDataFrame({
    refId: target.refId,
    fields: [
      { name: grafana.TIME_SERIES_TIME_FIELD_NAME, type: FieldType.time, values: times, config: {} },
      { name: grafana.TIME_SERIES_VALUE_FIELD_NAME, type: FieldType.number, values, labels, config: { displayNameFromDS: seriesName(target, labels) } },
    ],
  });
}

const parse = (text) => ({ '+Inf': Infinity, '-Inf': -Infinity })[text] ?? Number(text);

// tableFrame has a column for each label. Where there are several queries, the value has the letter of its query.
function tableFrame(panel, target, result) {
  const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
  return grafana.toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: result.map(({ value }) => value[0] * 1000), config: {} },
      ...labels.map((label) => ({ name: label, type: FieldType.string, values: result.map(({ metric }) => metric[label] ?? ''), config: {} })),
      {
        name: panel.targets.length > 1 ? `Value #${target.refId}` : 'Value',
        type: FieldType.number, values: result.map(({ value }) => parse(value[1])), config: {},
      },
    ],
  });
}

// gridOf are the moments of a range. Grafana aligns it to the step.
function gridOf(from, to, step) {
  const start = Math.floor(from / step) * step;
  const end = Math.floor(to / step) * step;
  return { start, end, times: Array.from({ length: Math.round((end - start) / step) + 1 }, (_, i) => Math.round((start + i * step) * 1000)) };
}

async function targetFrames(panel, target, { prometheus, from, to, step, variables }) {
  const query = interpolate(target.expr, variables);
  if (target.instant) {
    const { result } = await ask(prometheus, 'query', { query, time: to });
    if (target.format === 'table') return [tableFrame(panel, target, result)];
    return result.map(({ metric, value }) => seriesFrame(target, metric, [value[0] * 1000], [parse(value[1])]));
  }
  const { start, end } = gridOf(from, to, step);
  const { result } = await ask(prometheus, 'query_range', { query, start, end, step });
  return result.map(({ metric, values }) => seriesFrame(target, metric, values.map(([time]) => Math.round(time * 1000)), values.map(([, value]) => parse(value))));
}

// What a default or an override may set; known.mjs says with which values.
const registry = new grafana.FieldConfigOptionsRegistry();
const property = (id, isCustom) => ({ id: isCustom ? `custom.${id}` : id, path: id, isCustom, name: id, process: (value) => value, shouldApply: () => true });
for (const id of ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'mappings', 'thresholds', 'color']) registry.register(property(id, false));
for (const id of ['drawStyle', 'lineInterpolation', 'lineWidth', 'fillOpacity', 'showPoints', 'spanNulls', 'stacking', 'align', 'width', 'cellOptions', 'inspect', 'filterable']) {
  registry.register(property(id, true));
}

function transform(transformations, frames) {
  return new Promise((resolve, reject) => {
    grafana.transformDataFrame(transformations, frames).subscribe({ next: resolve, error: reject });
  });
}

// readPanel returns the frames of a panel as Grafana would draw them, and the moments at which a series has a value or a gap.
export async function readPanel(dashboard, panel, { prometheus, from, to, scrape, points }) {
  const range = { from: grafana.dateTime(from * 1000), to: grafana.dateTime(to * 1000) };
  const step = grafana.rangeUtil.calculateInterval(range, points, `${scrape}s`).intervalMs / 1000;
  // Four scrapes at least, as Grafana's data source for Prometheus has it.
  const variables = { __rate_interval: `${Math.ceil(Math.max(step + scrape, 4 * scrape))}s`, __range: `${Math.round(to - from)}s` };
  for (const variable of dashboard.templating.list) variables[variable.name] = variable.allValue;
  const answers = await Promise.all(panel.targets.map((target) => targetFrames(panel, target, { prometheus, from, to, step, variables })));
  const frames = await transform(panel.transformations ?? [], answers.flat());
  return {
    times: gridOf(from, to, step).times,
    frames: grafana.applyFieldOverrides({
      data: frames, fieldConfig: panel.fieldConfig, fieldConfigRegistry: registry, replaceVariables: (text) => text, theme, timeZone: 'utc',
    }),
  };
}
