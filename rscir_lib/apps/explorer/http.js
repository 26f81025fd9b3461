// Host: the page that `make explore` serves. Question and answer are JSON.

import { open } from "./view.js";

open(async (question) => {
  const reply = await fetch("ask", { method: "POST", body: JSON.stringify(question) });
  if (!reply.ok && reply.status !== 400) throw new Error(`the server answered ${reply.status}`);
  return reply.json();
});
