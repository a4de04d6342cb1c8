import { createRequire } from 'node:module';

// Grafana's library for data frames, fields, units and colors, and its dark theme. The library is made for browsers: it asks
// for these two when it is loaded.
globalThis.window ??= globalThis;
globalThis.navigator ??= { language: 'en-US', languages: ['en-US'] };
export const grafana = createRequire(import.meta.url)('@grafana/data');

export const theme = grafana.createTheme({ colors: { mode: 'dark' } });
export const color = (name) => theme.visualization.getColorByName(name);

const { mergeTransformer, organizeFieldsTransformer } = grafana.standardTransformers;
grafana.standardTransformersRegistry.setInit(() => [mergeTransformer, organizeFieldsTransformer]
  .map((transformation) => ({ id: transformation.id, name: transformation.name, transformation, editor: null })));
