// Host: a cell of JupyterLab, by anywidget. Questions and answers are messages; every view of a widget hears every answer.

import { mount } from "./view.js";

/** @import { Ask, WidgetModel } from "./types" */

/** @param {{ model: WidgetModel, el: HTMLElement }} host */
async function render({ model, el }) {
  const waiting = new Map();
  /** @param {any} message */
  const hear = ({ id, answer }) => {
    waiting.get(id)?.(answer);
    waiting.delete(id);
  };
  /** @type {Ask} */
  const ask = (question) =>
    new Promise((done) => {
      const id = Math.random();
      waiting.set(id, done);
      model.send({ id, question });
    });
  model.on("msg:custom", hear);
  const inLab = document.querySelector(".jp-LabShell, .jp-NotebookShell"); // whose address is not ours
  const end = await mount(el, ask, !inLab, model.get("start"));
  return () => {
    model.off("msg:custom", hear);
    end();
  };
}

export default { render };
