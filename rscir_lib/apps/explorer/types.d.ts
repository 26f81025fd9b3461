// What the page and its host say to each other, and what the modules hand around. session.py answers these questions.

/** An archive position, or the key of a picture of one's own. */
export type ImageId = number | string;
/** Mean, unbiased std, least and greatest similarity over the whole archive. */
export type Moments = [number, number, number, number];
export type Scale = (moments: Moments, all: Float64Array) => (s: number) => number;
export type Rule = (image: number, text: number, lambda: number) => number;

/** scale and rule: names in scoring.js, null where only the kernel can compute the method. */
export type Method = { name: string; about: string; scale: string | null; rule: string | null; hasLambda: boolean };

/** The answer to "hello". opening: the query to begin with; median: of WeiCom's AP in per cent. whole: an answer to a query
 * holds every image; hasKernel: Python encodes, and keeps the marks; archive: the identity of what is shown, which every
 * question carries; warning: what a person must know. */
export type Facts = {
  title: string; notice: string; files: string[]; classes: string[]; classIndex: number[]; words: string[]; methods: Method[];
  queries: BenchmarkQuery[]; targets: number[][]; unknowns: number[][]; excludeSelf: boolean;
  marks: Mark[]; marksFile: string; whole: boolean; hasKernel: boolean; opening: number; median: number | null;
  archive: string; warning: string;
};

/** Position, text, attribute, and which of the targets and unknowns are its own. */
export type BenchmarkQuery = [number, string, string, number, number];
/** Image, text, answer, verdict. */
export type Mark = [string, string, string, string];

/** The answer to "query". similarities to the picture and to the words, empty for an absent side; where not every image
 * is sent, their positions and percentiles. Arrays are numbers, or their bytes in base64. */
export type Answer = {
  similarities: (string | Float64Array)[]; positions?: string; percentiles?: string[];
  moments: (Moments | [])[]; strange?: string[];
};

/** Asks the host; an answer that has `error` is a refusal. */
export type Ask = (question: Record<string, unknown>) => Promise<any>;

/** All that a link holds. min: the least score of a hit that is shown. */
export type State = {
  images: ImageId[]; text: string; lambda: number; method: string; top: number; cls: string; min: number | null;
};

/** One picture. footprint: its corners on the ground; img: the one in the grid. */
export type Picture = {
  file: string; class: string; src: string; img?: HTMLImageElement; footprint?: [number, number][] | null;
};

/** The static page's data.js. */
export type PageData = {
  facts: Facts; footprints: ([number, number][] | null)[]; dim: number; feats: string; wordFeats: string;
  together: number; rated: { ap: (number | null)[] };
  thumbnails?: (number: number, jpegs: string[]) => void;
};

/** The nodes of the page that change, by their data-part in layout.js. */
type Part = HTMLInputElement & HTMLCanvasElement & HTMLDialogElement & HTMLAnchorElement;
export type Parts = Record<string, Part>;

/** What an anywidget host gives `render`. */
export type WidgetModel = {
  get(name: string): any;
  send(content: object): void;
  on(event: string, handler: (...values: any[]) => void): void;
  off(event: string, handler: (...values: any[]) => void): void;
};

declare global {
  var RSCIR: PageData;
}
