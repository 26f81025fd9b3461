// What the page and its host say to each other, and what the modules hand around. session.py answers these questions.

/** An archive position, or the key of a picture of one's own. */
export type ImageId = number | string;
/** Mean, unbiased std, least and greatest similarity over the whole archive. */
export type Moments = [number, number, number, number];
export type Scale = (moments: Moments, all: Float64Array) => (s: number) => number;
export type Rule = (image: number, text: number, lambda: number) => number;

/** scale and rule: names in scoring.js, null where only the kernel can compute the method. */
export type Method = { name: string; scale: string | null; rule: string | null; hasLambda: boolean };

/** The answer to "hello". whole: an answer to a query holds every image; map: the archive knows where its images lie. */
export type Facts = {
  title: string; n: number; classes: string[]; words: string[]; attributes: string[]; methods: Method[];
  whole: boolean; uploads: boolean; marks: string | null; map: boolean;
};

export type Question = { ask: string; images: ImageId[]; words: string; without: string; method?: string; cls?: string };

/** The answer to "query"; its buffers hold the float64 similarities to the picture and to the words, and where not every
 * image is sent, int32 positions and float32 percentiles (picture, then words). */
export type Answer = {
  moments: (Moments | [])[]; relevant: number[] | null; unknown: number[]; attribute: string;
  marks: Record<number, string>; strange?: string[];
};

/** Asks the host; an answer that has `error` is a refusal. */
export type Ask = (question: Record<string, unknown>, buffers?: ArrayBuffer[]) => Promise<[any, ArrayBuffer[]]>;

/** All that a link holds. min: the least score of a hit that is shown. */
export type State = {
  images: ImageId[]; text: string; lambda: number; method: string; top: number; cls: string; min: number | null;
};

/** One picture. footprint: its corners on the ground; img: one that is drawn. */
export type Picture = {
  file: string; class: string; src: string; footprint?: [number, number][] | null;
  img?: HTMLImageElement; ready?: Promise<void>;
};

/** The static page's data.js. queries: position, text, attribute, number of its target, excluded images, AP. */
export type PageData = {
  facts: Facts; files: string[]; classIndex: number[]; footprints: [number, number][][] | null; dim: number;
  feats: string; wordFeats: string; together: number; targets: number[][];
  queries: [number, string, string, number, number[], number | null][];
  thumbnails?: (number: number, encoded: string[]) => void;
};

/** The nodes of the page that change, by their data-part in layout.js. */
export type Parts = Record<
  "root" | "title" | "pictures" | "note" | "error" | "pageText" | "thumbs" | "suggestions" | "lambda" | "count" | "metrics" |
  "hits" | "pointed" | "strip" | "curveFigure" | "curveText" | "mapFigure" | "uploadLabel" | "noUpload" | "benchmark", HTMLElement
> & Record<
  "back" | "forward" | "clear" | "pageBefore" | "nextPage" | "random" | "best" | "worst" | "any" | "link" | "csv" | "png" |
  "html" | "marks", HTMLButtonElement
> & Record<"words" | "browseName" | "upload" | "slider" | "top" | "min", HTMLInputElement>
  & Record<"browseClass" | "attribute" | "method" | "cls", HTMLSelectElement>
  & { curve: SVGElement; map: SVGElement; scatter: HTMLCanvasElement; browse: HTMLDetailsElement };

/** What an anywidget host gives `render`. */
export type WidgetModel = {
  get(name: string): any;
  send(content: object, callbacks: undefined, buffers: ArrayBuffer[]): void;
  on(event: string, handler: (...values: any[]) => void): void;
  off(event: string, handler: (...values: any[]) => void): void;
};

declare global {
  var RSCIR: PageData;
}
