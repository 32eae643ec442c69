// The live view. Everything recorded is put in as text, never as markup.
"use strict";
{
  const live = document.getElementById("live");
  const state = document.getElementById("state");
  const pause = document.getElementById("pause");
  const rows = document.getElementById("rows");
  const verdicts = ["ALLOW", "ESCALATE", "ABSTAIN", "DENY"];
  const marks = { ALLOW: "✓", ESCALATE: "▲", ABSTAIN: "○", DENY: "✕" };
  const shown = Number(live.dataset.shown);
  const text = (id, value) => { document.getElementById(id).textContent = value; };
  const rate = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(1));
  let source = null;
  let paused = false;

  function cell(row, value, name) {
    const made = row.insertCell();
    made.textContent = value;
    if (name) made.className = name;
    return made;
  }

  function add(one) {
    const row = rows.insertRow(0);
    row.className = "fresh";
    const link = document.createElement("a");
    link.href = `${live.dataset.decisions}/${encodeURIComponent(one.id)}`;
    const at = document.createElement("time");
    at.dateTime = `${new Date(one.at_ms).toISOString().slice(0, 19)}Z`;
    for (const part of [at.dateTime.slice(0, 10), at.dateTime.slice(10)]) {
      if (at.hasChildNodes()) at.append(document.createElement("wbr"));
      at.append(Object.assign(document.createElement("span"), { textContent: part }));
    }
    link.append(at);
    cell(row, "", "nw").append(link);
    const verdict = document.createElement("span");
    verdict.className = `verdict v-${one.verdict.toLowerCase()}`;
    const mark = document.createElement("span");
    mark.setAttribute("aria-hidden", "true");
    mark.textContent = marks[one.verdict];
    verdict.append(mark, ` ${one.verdict}`);
    cell(row, "").append(verdict);
    const action = cell(row, "");
    for (const part of one.action.split(/(?<=_)/)) action.append(part, document.createElement("wbr"));
    cell(row, one.amount, "n");
    cell(row, one.reasons, "mid");
    while (rows.rows.length > shown) rows.deleteRow(-1);
  }

  function told(event) {
    const frame = JSON.parse(event.data);
    let all = 0;
    let allRate = 0;
    for (const name of verdicts) { all += frame.counts[name]; allRate += frame.rates[name]; }
    text("rate-all", rate(allRate));
    text("count-all", all.toLocaleString("en"));
    for (const name of verdicts) {
      text(`rate-${name}`, rate(frame.rates[name]));
      text(`count-${name}`, frame.counts[name].toLocaleString("en"));
      text(`share-${name}`, all ? `${(100 * frame.counts[name] / all).toFixed(1)}%` : "–");
    }
    const peak = Math.max(1, ...frame.seconds);
    text("peak", Math.max(...frame.seconds).toLocaleString("en"));
    document.getElementById("line").setAttribute("d", frame.seconds.map((n, x) => `${x ? "L" : "M"}${x} ${(39 - 37 * n / peak).toFixed(1)}`).join(""));
    // a row that has the focus stays where it is
    if (!rows.contains(document.activeElement)) for (const one of frame.rows) add(one);
    if (frame.new) text("shown-of", `Showing ${frame.rows.length} of the last ${frame.new.toLocaleString("en")}; every one is counted.`);
  }

  function show() {
    const on = source !== null;
    state.className = on ? "live-on" : "live-off";
    state.textContent = on ? "live" : paused ? "paused" : "not connected";
    pause.textContent = paused ? "Go on" : "Pause";
  }

  function open() {
    if (source || paused || document.hidden) return;
    source = new EventSource(live.dataset.stream);
    source.onmessage = told;
    source.onopen = show;
    source.onerror = () => {
      if (source && source.readyState === EventSource.CLOSED) { source = null; show(); setTimeout(open, 5000); }
    };
    show();
  }

  function close() {
    source?.close();
    source = null;
    show();
  }

  pause.addEventListener("click", () => { paused = !paused; if (paused) close(); else open(); });
  document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else open(); });
  addEventListener("pagehide", close);
  open();
}
