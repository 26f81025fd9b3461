// Host: a cell of JupyterLab, by anywidget. Questions and answers are messages; every view of a widget hears every answer.

import { mount } from "./view.js";

/** @import { Ask, WidgetModel } from "./types" */

/** @param {{ model: WidgetModel, el: HTMLElement }} host */
function render({ model, el }) {
  /** @type {Ask} */
  const ask = (question) =>
    new Promise((done) => {
      const id = Math.random();
      const hear = (/** @type {any} */ message) => {
        if (message.id !== id) return;
        model.off("msg:custom", hear);
        done(message.answer);
      };
      model.on("msg:custom", hear);
      model.send({ id, question });
    });
  const inLab = document.querySelector(".jp-LabShell, .jp-NotebookShell"); // whose address is not ours
  return mount(el, ask, !inLab, model.get("start"));
}

export default { render };
