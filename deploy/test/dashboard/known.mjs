// What the drawing knows. Everything else in a panel is a problem: a picture that leaves out what it does not know would show
// another dashboard.
import { grafana, color } from './grafana.mjs';

const any = () => true;
const text = (value) => typeof value === 'string';
const number = (value) => typeof value === 'number';
const flag = (value) => typeof value === 'boolean';
const one = (...values) => (value) => values.includes(value);
const empty = (value) => Array.isArray(value) || (value !== null && typeof value === 'object');

const units = new Set(grafana.getValueFormats().flatMap((category) => category.submenu.map((format) => format.value)));
const unit = (value) => units.has(value);
const colored = (value) => text(value) && (value.startsWith('#') || color(value) !== value);
const reducer = (value) => grafana.fieldReducers.getIfExists(value) !== undefined;

const gridded = { id: number, type: any, title: text, 'gridPos.{x,y,w,h}': number };
const queried = {
  ...gridded,
  description: text,
  'datasource.type': one('prometheus'),
  'datasource.uid': text,
  'targets[].datasource.type': one('prometheus'),
  'targets[].{refId,expr,legendFormat,editorMode,datasource.uid}': text,
  'targets[].format': one('time_series', 'table'),
  'targets[].{instant,range}': flag,
  'transformations[].id': (value) => grafana.standardTransformersRegistry.getIfExists(value) !== undefined,
  'transformations[].options': empty,
  'transformations[].options.**': any,
  'fieldConfig.overrides': empty,
  'fieldConfig.overrides[].matcher.id': (value) => grafana.fieldMatchers.getIfExists(value) !== undefined,
  'fieldConfig.overrides[].matcher.options': text,
  'field.unit': unit,
  'field.{displayName,noValue}': text,
  'field.{min,max,decimals}': number,
  'field.mappings': empty,
  'field.mappings[].type': one('value'),
  'field.mappings[].options.*.text': text,
  'field.mappings[].options.*.color': colored,
  'field.mappings[].options.*.index': number,
  'field.thresholds.mode': one('absolute'),
  'field.thresholds.steps[].color': colored,
  'field.thresholds.steps[].value': (value) => value === null || number(value),
  'field.color.mode': one('thresholds', 'palette-classic', 'fixed'),
  'field.color.fixedColor': colored,
};
const legend = {
  'options.legend.displayMode': one('list', 'table'),
  'options.legend.placement': one('bottom', 'right'),
  'options.legend.showLegend': flag,
  'options.legend.width': number,
  'options.legend.calcs': empty,
  'options.legend.calcs[]': reducer,
  'options.legend.sortBy': text,
  'options.legend.sortDesc': flag,
  // Nobody points at a picture.
  'options.tooltip.{mode,sort}': text,
};

const knownOf = {
  row: { ...gridded, collapsed: one(false), panels: empty },
  stat: {
    ...queried,
    'options.reduceOptions.values': one(false),
    'options.reduceOptions.calcs[]': reducer,
    'options.reduceOptions.fields': one(''),
    'options.{orientation,justifyMode}': one('auto'),
    'options.textMode': one('auto', 'name'),
    'options.colorMode': one('value'),
    'options.graphMode': one('none'),
    'options.wideLayout': one(true),
    'options.showPercentChange': one(false),
    'options.percentChangeColorMode': text,
  },
  timeseries: {
    ...queried, ...legend,
    'field.custom.drawStyle': one('line'),
    'field.custom.lineInterpolation': one('linear', 'stepAfter'),
    'field.custom.{lineWidth,fillOpacity}': number,
    'field.custom.showPoints': one('never'),
    'field.custom.spanNulls': one(false),
    'field.custom.stacking.mode': one('none', 'normal'),
    'field.custom.stacking.group': text,
  },
  'state-timeline': {
    ...queried, ...legend,
    'field.custom.lineWidth': one(0),
    'field.custom.fillOpacity': number,
    'options.legend.displayMode': one('list'), // states have no numbers
    'options.mergeValues': one(true),
    'options.showValue': one('never'),
    'options.alignValue': text, // of a text that is never shown
    'options.rowHeight': number,
  },
  table: {
    ...queried,
    'field.custom.align': one('auto'),
    'field.custom.width': number,
    'field.custom.cellOptions.type': one('auto', 'color-text'),
    'field.custom.{inspect,filterable}': flag, // what a click does
    'options.frameIndex': one(0),
    'options.showHeader': one(true),
    'options.cellHeight': one('sm'),
    'options.footer.show': one(false),
    'options.footer.{countRows,fields}': any,
    'options.footer.reducer[]': reducer,
    'options.sortBy[].displayName': text,
    'options.sortBy[].desc': flag,
  },
};

// leaves are the values below value with their paths. What is empty is a leaf too.
function* leaves(value, path) {
  const below = value === null || typeof value !== 'object' ? [] : Object.entries(value);
  if (below.length === 0) yield [path, value];
  for (const [key, inner] of below) yield* leaves(inner, path + (Array.isArray(value) ? '[]' : (path && '.') + key));
}

// In a path, * is any one name, ** any path, and {a,b} a or b.
function pattern(path) {
  const source = path.replace(/[.[\]]/g, '\\$&')
    .replace(/\{(.*)\}/, (_, names) => `(?:${names.replaceAll(',', '|')})`)
    .replaceAll('**', '.+').replaceAll('*', '[^.]+');
  return new RegExp(`^${source}$`);
}
const patternsOf = Object.fromEntries(Object.entries(knownOf).map(([type, known]) => [type, Object.entries(known).map(([path, holds]) => [pattern(path), holds])]));

// panelLeaves gives defaults and overrides the same paths: an override sets what a default does.
function* panelLeaves(panel) {
  for (const [path, value] of leaves(panel, '')) {
    const inDefaults = path.match(/^fieldConfig\.defaults\.(.*)$/);
    if (inDefaults) yield [`field.${inDefaults[1]}`, value];
    else if (!path.startsWith('fieldConfig.overrides[].properties')) yield [path, value];
  }
  for (const rule of panel.fieldConfig?.overrides ?? []) {
    for (const property of rule.properties) yield* leaves(property.value, `field.${property.id}`);
  }
}

// problems says what of a dashboard can't be drawn.
export function problems(dashboard) {
  const found = [];
  for (const variable of dashboard.templating.list) {
    if (!['datasource', 'query'].includes(variable.type)) found.push(`variable ${variable.name}: the type ${variable.type} is not known`);
  }
  if (dashboard.annotations.list.length > 0) found.push('annotations are not known');
  for (const panel of dashboard.panels) {
    const where = `panel ${panel.id} "${panel.title}"`;
    if (!patternsOf[panel.type]) {
      found.push(`${where}: the type ${panel.type} is not known`);
      continue;
    }
    for (const [path, value] of panelLeaves(panel)) {
      const rules = patternsOf[panel.type].filter(([known]) => known.test(path));
      if (rules.length === 0) found.push(`${where}: ${path} is not known`);
      else if (!rules.some(([, holds]) => holds(value))) found.push(`${where}: ${path} ${JSON.stringify(value)} is not known`);
    }
    for (const target of panel.targets ?? []) {
      if (target.instant === target.range) found.push(`${where}: query ${target.refId} must be either instant or range`);
    }
  }
  return found;
}
