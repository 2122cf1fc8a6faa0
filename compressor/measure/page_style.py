"""How `report.html` looks and the few lines of script that copy a command."""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #fff; --ink: #1d2024; --muted: #676d75; --rule: #e3e1dc;
  --accent: #0b6e86; --soft: #a3a8ae; --heat: #57b4c9; --wash: #eef5f6;
  --warn: #8a5a00; --warn-wash: #fdf4e0; --bad: #b0372b; --good: #2c7a4b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1b1e23; --ink: #e9e7e3; --muted: #9ba2aa; --rule: #30353c;
    --accent: #63c5dc; --soft: #737a83; --heat: #14647a; --wash: #18282d;
    --warn: #e9bd66; --warn-wash: #2b2415; --bad: #f08a7e; --good: #74c794;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 1120px; margin: 0 auto; padding: 48px 24px 72px; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: 14px; font-weight: 600; margin: 0; color: var(--accent); letter-spacing: .02em; }
h2 { font-size: 20px; margin: 56px 0 6px; letter-spacing: -.01em; }
h3 { font-size: 15px; margin: 24px 0 6px; }
p { margin: 0 0 12px; max-width: 92ch; }
.of { font-weight: 600; margin: 0 0 8px; overflow-wrap: anywhere; }
.about { color: var(--muted); font-size: 14px; margin: 2px 0 20px; max-width: none; }
.summary {
  font-size: clamp(20px, 2.6vw, 27px); line-height: 1.35; letter-spacing: -.015em;
  max-width: 36em; margin: 0 0 28px; text-wrap: pretty; overflow-wrap: anywhere;
}
.note { color: var(--muted); font-size: 14px; }
.cards {
  display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fill, minmax(min(220px, 45%), 1fr));
}
.card {
  background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 16px 18px;
}
.card b {
  display: block; font-size: 30px; font-weight: 620; letter-spacing: -.02em; line-height: 1.15;
}
.card span { display: block; font-weight: 550; font-size: 14px; }
.card small { color: var(--muted); font-size: 13px; }
.findings { list-style: none; padding: 0; margin: 24px 0 0; }
.findings li {
  background: var(--warn-wash); border-left: 3px solid var(--warn); border-radius: 0 6px 6px 0;
  padding: 8px 14px; margin: 0 0 6px; font-size: 15px; overflow-wrap: anywhere;
}
.wide { overflow-x: auto; margin: 12px 0 0; }
table {
  border-spacing: 0; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums;
  line-height: 22px; /* whole pixels: the name that stays in place covers no rule */
}
th, td {
  padding: 8px 7px; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule);
}
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 2px; }
thead th {
  color: var(--muted); font-weight: 500; font-size: 12.5px; vertical-align: bottom;
  line-height: 16px; border-bottom-color: var(--soft); white-space: normal;
}
tbody th {
  font-weight: 600; white-space: normal; overflow-wrap: anywhere;
  min-width: 16ch; max-width: 26ch;
}
tr.beaten td, tr.beaten th { color: var(--muted); }
tr.beaten th { font-weight: 450; }
td small { display: block; color: var(--muted); font-size: 12px; line-height: 16px; }
.text { text-align: left; }
.names { white-space: normal; min-width: 24ch; }
.wide th:first-child { position: sticky; left: 0; background: var(--paper); }
.tag {
  font-size: 11px; font-weight: 500; color: var(--muted); border: 1px solid var(--rule);
  border-radius: 20px; padding: 1px 8px; margin-left: 6px;
}
.dot { color: var(--accent); font-size: 15px; }
.passed { color: var(--good); font-weight: 600; }
.failed { color: var(--bad); font-weight: 600; }
.plots {
  display: grid; gap: 24px;
  grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
}
figure { margin: 12px 0 0; overflow-x: auto; }
figure svg { display: block; width: 100%; min-width: 420px; height: auto; overflow: visible; }
figure.bars svg { min-width: 860px; }
.plots figure { max-width: 640px; }
.plots figure.bars { max-width: none; grid-column: 1 / -1; }
figcaption { color: var(--muted); font-size: 13.5px; margin-top: 6px; max-width: 76ch; }
details { border-bottom: 1px solid var(--rule); padding: 10px 0; }
summary { cursor: pointer; overflow-wrap: anywhere; font-size: 15px; }
summary b { font-weight: 600; margin-right: 8px; }
.chain { color: var(--muted); font-size: 14px; }
ol.steps { margin: 12px 0 4px; padding-left: 22px; }
ol.steps li { margin-bottom: 12px; font-size: 14px; }
.command { display: flex; gap: 8px; align-items: flex-start; margin-top: 4px; }
code {
  font: 13px/1.5 ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace;
}
.command code {
  flex: 1; background: var(--card); border: 1px solid var(--rule); border-radius: 6px;
  padding: 7px 11px; overflow-wrap: anywhere; white-space: pre-wrap;
}
button {
  font: 500 12.5px/1.5 inherit; font-family: inherit; color: var(--accent); background: var(--card);
  border: 1px solid var(--rule); border-radius: 6px; padding: 7px 12px; cursor: pointer;
}
button:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
dl.facts {
  display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; font-size: 14px;
  margin: 12px 0;
}
dl.facts dt { color: var(--muted); }
dl.facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 600px) {
  main { padding: 28px 16px 48px; }
  dl.facts { grid-template-columns: 1fr; gap: 0; }
  dl.facts dd { margin-bottom: 8px; }
  .command { flex-direction: column; }
  .command code { width: 100%; }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --card: #fff; --ink: #111; --muted: #555; --rule: #ccc;
    --accent: #0b6e86; --soft: #999; --heat: #57b4c9; --warn: #8a5a00; --warn-wash: #fff;
  }
  @page { margin: 14mm; }
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
  button { display: none; }
  table { font-size: 8pt; }
  th, td { padding: 4px 5px; white-space: normal; }
  figure svg, figure.bars svg { min-width: 0; }
  .plots { grid-template-columns: 1fr 1fr; }
  .cards { grid-template-columns: repeat(4, 1fr); }
  .card { padding: 10px 12px; }
  .card b { font-size: 18pt; }
  figure, tr, .card, .findings li, details { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""

# Without a clipboard (an old browser, a page that may not use it) the command is selected instead.
SCRIPT = """
document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const code = button.previousElementSibling;
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
});
"""
