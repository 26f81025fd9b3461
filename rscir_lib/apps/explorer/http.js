// Host: the page that `make explore` serves. Question and answer are JSON.

import { open } from "./view.js";

open(async (question) => {
  const reply = await fetch("ask", { method: "POST", body: JSON.stringify(question) }).catch(() => {
    throw new Error("The explorer's server gives no answer. Start it again; this page then goes on by itself.");
  });
  if (!reply.ok && reply.status !== 400) throw new Error(`the server answered ${reply.status}`);
  return reply.json();
});
