// The type of the dashboards, from Grafana's own: its Dashboard leaves queries, options and custom
// fields of a panel open, here they have the types of the panel's kind.

import type {
  AnnotationQuery, Dashboard, DataQuery, FieldConfig, GraphFieldConfig, Panel, RowPanel, TableFieldOptions,
} from "@grafana/schema";
import type * as BarChart from "@grafana/schema/dist/types/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen.d.ts";
import type * as BarGauge from "@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen.d.ts";
import type * as Stat from "@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts";
import type * as Table from "@grafana/schema/dist/types/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts";
import type * as TimeSeries from "@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts";

/** JSON has the values of an enum where TypeScript wants its members. */
type Json<T> =
  unknown extends T ? T
  : T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : never)
  : T extends boolean | null | undefined ? T
  : { [Key in keyof T]: Json<T[Key]> };

/** A query as the Prometheus data source stores it; the package has no type for it. */
interface Query extends DataQuery {
  expr: string;
  legendFormat: string;
  range: boolean;
  instant: boolean;
  format: "time_series" | "table";
  editorMode: "code";
}

/** Likewise, with the fields of that data source. */
interface Annotation extends AnnotationQuery {
  expr: string;
  step: string;
  titleFormat: string;
}

type Field<Custom> = Omit<FieldConfig, "custom"> & { custom: Partial<Custom> };

/** A property that an override sets, by its path. */
type Property<Custom> =
  | { [Key in keyof Omit<FieldConfig, "custom">]-?: { id: Key; value: NonNullable<FieldConfig[Key]> } }[keyof Omit<FieldConfig, "custom">]
  | { [Key in keyof Custom & string]-?: { id: `custom.${Key}`; value: NonNullable<Custom[Key]> } }[keyof Custom & string];

interface Override<Custom> {
  matcher: { id: "byName" | "byFrameRefID"; options: string };
  properties: Property<Custom>[];
}

/** A panel; options that are absent have Grafana's defaults. */
type Kind<Type extends string, Options, Custom> = Omit<Panel, "type" | "options" | "targets" | "fieldConfig"> & {
  type: Type;
  title: string;
  description: string;
  options: Partial<Options>;
  targets: Query[];
  fieldConfig: { defaults: Field<Custom>; overrides: Override<Custom>[] };
};

type AnyPanel =
  | Kind<"barchart", BarChart.Options, BarChart.FieldConfig>
  | Kind<"bargauge", BarGauge.Options, object>
  | Kind<"stat", Stat.Options, object>
  | Kind<"table", Table.Options, TableFieldOptions>
  | Kind<"timeseries", TimeSeries.Options, GraphFieldConfig>;

export type Typed = Json<
  Omit<Dashboard, "panels" | "annotations"> & {
    annotations: { list: Annotation[] };
    panels: (AnyPanel | (Omit<RowPanel, "panels"> & { panels: AnyPanel[] }))[];
  }
>;
