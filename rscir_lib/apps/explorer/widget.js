// Host: a cell of JupyterLab, by anywidget. Questions and answers are messages; every view of a widget hears every answer.

import { mount } from "./view.js";

/** @import { Ask, WidgetModel } from "./types" */

/** @param {ArrayBuffer | DataView} buffer @returns {ArrayBuffer} */
function plain(buffer) {
  if (buffer instanceof ArrayBuffer) return buffer;
  return /** @type {ArrayBuffer} */ (buffer.buffer).slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength);
}

/** @param {{ model: WidgetModel, el: HTMLElement }} host */
async function render({ model, el }) {
  const waiting = new Map();
  /** @param {any} message @param {DataView[]} buffers */
  const hear = (message, buffers) => {
    waiting.get(message.id)?.([message, buffers.map(plain)]);
    waiting.delete(message.id);
  };
  let last = 0;
  /** @type {Ask} */
  const ask = (question, buffers = []) =>
    new Promise((done) => {
      const id = `${Math.random()} ${++last}`;
      waiting.set(id, done);
      model.send({ ...question, id }, undefined, buffers);
    });
  model.on("msg:custom", hear);
  const inLab = document.querySelector(".jp-LabShell, .jp-NotebookShell"); // whose address is not ours
  const end = await mount(el, ask, { link: !inLab, start: model.get("start") });
  return () => {
    model.off("msg:custom", hear);
    end();
  };
}

export default { render };
