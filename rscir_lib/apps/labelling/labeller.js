// The labelling widget in the browser. Answers go to the kernel with the name of the image they are for, so that a
// quick hand can run ahead of it; what the kernel has not confirmed yet is kept in `answered`.

/** @typedef {{ image: string, picture: string, proposed: string, margin: number | null }} Item */

const MARKUP = `<h3></h3>
<div class="stage" tabindex="0" role="group" aria-label="image to label"><img alt=""><p class="caption"></p></div>
<div class="choices" role="group" aria-label="values"></div>
<p class="status" role="status" aria-live="polite"></p><p class="problem" role="alert"></p>`;

function choice(/** @type {string} */ key, /** @type {string} */ text, /** @type {() => void} */ onclick) {
  const button = document.createElement("button");
  button.innerHTML = `${key && `<kbd>${key}</kbd> `}<span></span> <span class="count"></span>`;
  const [label, count] = button.querySelectorAll("span");
  label.textContent = text;
  return Object.assign(button, { type: "button", onclick, count });
}

/** @param {{ model: import("../explorer/types").WidgetModel, el: HTMLElement }} host */
function render({ model, el }) {
  el.classList.add("rscir-labeller");
  el.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves the keys to the widget
  el.innerHTML = MARKUP;
  const part = (/** @type {string} */ selector) => /** @type {HTMLElement} */ (el.querySelector(selector));
  const picture = /** @type {HTMLImageElement} */ (part("img"));
  part("h3").textContent = model.get("title");
  const values = /** @type {string[]} */ (model.get("values"));
  const buttons = values.map((value, k) => choice(k < 9 ? `${k + 1}` : "", value, () => answer(value)));
  const skip = choice("0", "can't tell", () => answer(""));
  const undo = choice("U", "undo", takeBack);
  for (const button of [skip, undo]) button.className = "quiet";
  part(".choices").append(...buttons, skip, undo);
  const answered = new Set();
  const queue = () => /** @type {Item[]} */ (model.get("queue"));
  const current = () => queue().find((item) => !answered.has(item.image));

  function answer(/** @type {string} */ value) {
    const item = current();
    if (!item) return;
    answered.add(item.image);
    model.send({ image: item.image, value });
    draw();
    part(".stage").focus({ preventScroll: true });
  }

  function takeBack() {
    answered.clear();
    model.send({ undo: true });
    part(".stage").focus({ preventScroll: true });
  }

  function draw() {
    const item = current();
    const counts = /** @type {Record<string, number>} */ (model.get("counts"));
    const done = Object.values(counts).reduce((sum, count) => sum + count, 0);
    picture.hidden = !item?.picture;
    if (item?.picture && picture.src !== item.picture) picture.src = item.picture;
    picture.alt = item ? `image to label: ${item.image}` : "";
    let caption = item?.image ?? (model.get("left") ? "one moment ..." : "Every image has an answer.");
    if (item && !item.picture) caption += ": this image can't be read; say can't tell";
    if (item?.proposed) caption += `; proposed: ${item.proposed}, ahead by ${item.margin?.toFixed(3)}`;
    part(".caption").textContent = caption;
    for (const [k, button] of [...buttons, skip].entries()) {
      button.classList.toggle("proposed", Boolean(item?.proposed) && item?.proposed === values[k]);
      button.disabled = !item;
      button.count.textContent = `${counts[values[k] ?? ""] || 0}`;
    }
    undo.disabled = !done;
    part(".status").textContent = `${done} answered, ${model.get("left")} left; every answer is saved at once`;
    part(".problem").textContent = model.get("problem");
  }

  el.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target instanceof HTMLButtonElement;
    const proposed = current()?.proposed;
    if (/^[1-9]$/.test(event.key) && Number(event.key) <= values.length) answer(values[Number(event.key) - 1]);
    else if (event.key === "0" || (event.key === " " && !onButton)) answer("");
    else if (event.key === "Enter" && !onButton && proposed) answer(proposed);
    else if (["u", "U", "Backspace"].includes(event.key)) takeBack();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };

  function refresh() {
    // what the kernel no longer asks for is kept; what it refused is asked again
    const asked = new Set(queue().map((item) => item.image));
    for (const image of answered) if (!asked.has(image) || model.get("problem")) answered.delete(image);
    draw();
  }
  for (const name of ["queue", "counts", "left", "problem"]) model.on(`change:${name}`, refresh);
  draw();
}

export default { render };
