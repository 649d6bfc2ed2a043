"""CSS of the report's page."""

PAGE_STYLE = """
:root { color-scheme: light dark; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; padding-bottom: 8px; }
.brand { margin: 0; color: var(--accent); font-weight: 700; letter-spacing: .08em;
  text-transform: uppercase; font-size: 13px; }
h1 { margin: 2px 0 4px; font-size: 30px; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 0 0 4px; font-size: 21px; overflow-wrap: anywhere; }
h3 { margin: 28px 0 2px; font-size: 16px; }
p { margin: 4px 0 12px; max-width: 75ch; }
.quiet, caption, footer { color: var(--quiet); }
section { background: var(--paper); border: 1px solid var(--rule); border-radius: 12px;
  padding: 24px 28px; margin: 18px 0; }
nav ul { display: flex; flex-wrap: wrap; gap: 6px 18px; list-style: none; margin: 8px 0 0;
  padding: 0; }
a { color: var(--accent); }
.figures { display: flex; flex-wrap: wrap; gap: 12px; margin: 14px 0 4px; }
.figures div { flex: 1 1 165px; background: var(--soft); border-radius: 8px; padding: 12px 16px; }
.figures dt { color: var(--quiet); font-size: 13px; }
.figures dd { margin: 0; font-size: 24px; font-weight: 650; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.figures dd small { display: block; font-size: 13px; font-weight: 400; color: var(--quiet); }
.missing { border-left: 4px solid var(--alarm); padding: 6px 14px; background: var(--soft); }
.scroll { overflow-x: auto; margin: 10px 0; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.chart { display: block; width: 100%; height: auto; min-width: 780px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: 6px; font-size: 13px; }
th, td { padding: 5px 10px; text-align: right; white-space: nowrap; }
th { font-weight: 600; }
th[scope=row], thead th[rowspan], thead tr:only-child th:first-child { text-align: left; }
tbody th { font-weight: 500; }
thead th { color: var(--quiet); border-bottom: 1px solid var(--rule); }
thead th[scope=colgroup] { color: var(--ink); text-align: left; border-left: 1px solid var(--rule);
  white-space: normal; overflow-wrap: anywhere; }
.first { border-left: 1px solid var(--rule); }
tbody tr:nth-child(even) { background: var(--soft); }
tfoot tr:first-child > * { border-top: 2px solid var(--rule); font-weight: 650; }
td.stall { color: var(--alarm); font-weight: 650; }
td.none { text-align: center; color: var(--quiet); }
.words-3 td:nth-of-type(-n+3), .words-3 th:nth-of-type(-n+4) { text-align: left; }
footer { padding-top: 4px; padding-bottom: 40px; font-size: 13px; }
@media (max-width: 640px) {
  main, header, footer { padding-left: 12px; padding-right: 12px; }
  section { padding: 16px 14px; border-radius: 8px; }
  h1 { font-size: 25px; }
  .figures div { flex-basis: 130px; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { background: #ffffff; font-size: 12px; }
  main, header, footer { max-width: none; padding: 0; }
  section { border: 0; padding: 0; margin: 0 0 20px; }
  nav { display: none; }
  .scroll { overflow: visible; }
  .chart { min-width: 0; max-height: 136mm; }
  p { max-width: none; margin-bottom: 4px; }
  .figures dd { font-size: 17px; }
  .figures div { padding: 6px 10px; }
  h3 { margin-top: 12px; }
  figure, table, .figures, h3 { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .run { break-before: page; }
  .figures div, .missing, tbody tr:nth-child(even) { print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
  table { font-size: 10.5px; }
  th, td { padding: 3px 6px; }
}
figure { margin: 0; }
"""
