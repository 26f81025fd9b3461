// The labelling widget in the browser. Answers go to the kernel with the name of the image they are for, so that a
// quick hand can run ahead of it; what the kernel has not confirmed yet is kept in `answered`.

/** @typedef {{ image: string, picture: string, proposed: string, margin: number | null }} Item */

/** @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {Record<string, string>} [attributes] */
function element(tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
}

/** @param {{ model: import("../explorer/types").WidgetModel, el: HTMLElement }} host */
function render({ model, el }) {
  el.classList.add("rscir-labeller");
  // JupyterLab leaves the keys to the widget
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  /** @type {string[]} */
  const values = model.get("values");
  const answered = new Set();

  const heading = element("h3", {}, model.get("title"));
  const stage = element("div", { class: "stage", tabindex: "0", role: "group", "aria-label": "image to label" });
  const picture = element("img", { alt: "" });
  const caption = element("p", { class: "caption" });
  stage.append(picture, caption);
  const choices = element("div", { class: "choices", role: "group", "aria-label": "values" });
  const buttons = values.map((value, number) => {
    const button = element("button", { type: "button" });
    if (number < 9) button.append(element("kbd", {}, String(number + 1)), " ");
    button.append(value, " ", element("span", { class: "count" }));
    button.addEventListener("click", () => answer(value));
    choices.append(button);
    return button;
  });
  const skip = element("button", { type: "button", class: "quiet" });
  skip.append(element("kbd", {}, "0"), " can't tell ", element("span", { class: "count" }));
  skip.addEventListener("click", () => answer(""));
  const undo = element("button", { type: "button", class: "quiet" });
  undo.append(element("kbd", {}, "U"), " undo");
  undo.addEventListener("click", takeBack);
  choices.append(skip, undo);
  const status = element("p", { class: "status", role: "status", "aria-live": "polite" });
  const problem = element("p", { class: "problem", role: "alert" });
  el.append(heading, stage, choices, status, problem);

  /** @returns {Item[]} */
  const queue = () => model.get("queue");
  const current = () => queue().find((item) => !answered.has(item.image));

  /** @param {string} value */
  function answer(value) {
    const item = current();
    if (!item) return;
    answered.add(item.image);
    model.send({ image: item.image, value }, undefined, []);
    draw();
    stage.focus({ preventScroll: true });
  }

  function takeBack() {
    answered.clear();
    model.send({ undo: true }, undefined, []);
    stage.focus({ preventScroll: true });
  }

  const count = (/** @type {Element} */ button) => /** @type {Element} */ (button.lastElementChild);

  function draw() {
    const item = current();
    /** @type {Record<string, number>} */
    const counts = model.get("counts");
    const done = Object.values(counts).reduce((sum, count) => sum + count, 0);
    picture.hidden = !item?.picture;
    if (item?.picture && picture.getAttribute("src") !== item.picture) picture.src = item.picture;
    picture.alt = item ? `image to label: ${item.image}` : "";
    let said = item?.image ?? (model.get("left") ? "one moment ..." : "Every image has an answer.");
    if (item && !item.picture) said += ": this image can't be read; say can't tell";
    if (item?.proposed) {
      said += `; proposed: ${item.proposed}`;
      if (item.margin !== null) said += `, ahead by ${item.margin.toFixed(3)}`;
    }
    caption.textContent = said;
    buttons.forEach((button, number) => {
      button.classList.toggle("proposed", item?.proposed === values[number]);
      button.disabled = !item;
      count(button).textContent = String(counts[values[number]] || 0);
    });
    skip.disabled = !item;
    count(skip).textContent = String(counts[""] || 0);
    undo.disabled = !done;
    status.textContent = `${done} answered, ${model.get("left")} left; every answer is saved at once`;
    problem.textContent = model.get("problem");
  }

  /** @param {KeyboardEvent} event */
  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onButton = event.target instanceof HTMLButtonElement;
    const item = current();
    if (/^[1-9]$/.test(event.key) && Number(event.key) <= values.length) answer(values[Number(event.key) - 1]);
    else if (event.key === "0" || (event.key === " " && !onButton)) answer("");
    else if (event.key === "Enter" && !onButton && item?.proposed) answer(item.proposed);
    else if (event.key === "u" || event.key === "U" || event.key === "Backspace") takeBack();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
  el.addEventListener("keydown", key);

  function refresh() {
    // what the kernel no longer asks for is kept; what it refused is asked again
    const asked = new Set(queue().map((item) => item.image));
    for (const image of answered) if (!asked.has(image) || model.get("problem")) answered.delete(image);
    draw();
  }
  for (const name of ["queue", "counts", "left", "problem"]) model.on(`change:${name}`, refresh);
  draw();
  return () => el.removeEventListener("keydown", key);
}

export default { render };
