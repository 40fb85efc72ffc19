// Nothing here is needed: without it, pages are loaded again to be renewed, and commands are selected to be copied.
"use strict";

const main = document.getElementById("main");
const seconds = Number(main?.dataset.renewal);

// A person who reads with the keyboard, has something selected or looks elsewhere is left alone.
function idle() {
  const active = document.activeElement;
  const inside = active && [...document.querySelectorAll("[data-living]")].some((part) => part.contains(active));
  return !document.hidden && !inside && document.getSelection()?.isCollapsed !== false;
}

// The page as it is now, parsed apart and never run.
function ask() {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.timeout = 30000;
    request.onloadend = () => resolve(request.status === 200 ? request.response : null);
    request.send();
  });
}

async function renew() {
  if (!idle()) return;
  const fresh = await ask();
  if (!fresh || !idle()) return;
  for (const part of document.querySelectorAll("[data-living]")) {
    const other = fresh.getElementById(part.id);
    if (!other) continue;
    const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
    const scrolled = [...part.querySelectorAll(".scroll[id]")].map((one) => [one.id, one.scrollLeft]);
    part.replaceChildren(...document.importNode(other, true).childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    for (const [id, left] of scrolled) document.getElementById(id)?.scrollTo({ left });
  }
  const time = document.querySelector("body > header time");
  const now = fresh.querySelector("body > header time");
  if (time && now) time.replaceWith(document.importNode(now, true));
  offerCopies();
}

function offerCopies() {
  if (!navigator.clipboard) return;
  for (const command of document.querySelectorAll("code.command:not([data-offered])")) {
    command.dataset.offered = "";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.setAttribute("aria-label", `Copy: ${command.textContent}`);
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(command.textContent);
      button.textContent = "Copied";
    });
    command.after(" ", button);
  }
}

offerCopies();
if (seconds > 0) {
  setInterval(renew, seconds * 1000);
}
