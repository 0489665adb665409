// SPDX-License-Identifier: Apache-2.0
// The style sheet of train/report.hpp: light, dark and printed, for phones and wide windows. Nothing is loaded.
#pragma once

#include "dpmp/core/config.hpp"

#if DPMP_BODIES
namespace dpmp::inline DPMP_ABI::train::detail {
inline constexpr const char* report_style = R"css(
:root {
  color-scheme: light dark;
  --paper: #f6f6f4; --card: #ffffff; --ink: #1c2025; --quiet: #5a626c; --rule: #e8e9eb; --edge: #d9dce0;
  --one: #2b5ca6; --two: #a94c12; --warn: #8f2d0a; --warn-paper: #fcefe8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #13161a; --card: #1a1e23; --ink: #e6e8eb; --quiet: #a3abb5; --rule: #2a2f36; --edge: #343a42;
    --one: #8ab4f5; --two: #f2a66b; --warn: #ffb59a; --warn-paper: #38201a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 56px; }
h1, h2, h3, p, dl, dd, figure { margin: 0; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.01em; }
h2 { font-size: 20px; line-height: 1.3; margin: 44px 0 14px; }
h3 { font-size: 14px; margin: 0 0 6px; color: var(--quiet); font-weight: 600; }
.kind { color: var(--quiet); font-size: 14px; margin-bottom: 6px; }
.user { unicode-bidi: isolate; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 1px; margin-top: 24px;
  background: var(--edge); border: 1px solid var(--edge); border-radius: 10px; overflow: hidden; }
.facts > div { background: var(--card); padding: 14px 18px; }
.facts dt { color: var(--quiet); font-size: 13px; }
.facts dd { font-size: 22px; line-height: 1.35; font-weight: 600; letter-spacing: -0.01em; overflow-wrap: normal; }
.facts dd small { font-size: 13px; font-weight: 400; color: var(--quiet); letter-spacing: 0; display: block; line-height: 1.4; }
.meaning { margin-top: 14px; color: var(--quiet); max-width: 56em; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 20px 24px; }
.warning { background: var(--warn-paper); border: 1px solid var(--warn); border-radius: 10px; color: var(--warn);
  padding: 14px 18px; margin-top: 20px; }
.words { display: grid; grid-template-columns: 9.5em 1fr; gap: 12px 24px; }
.words dd { max-width: 52em; }
.words dt { font-weight: 600; }
.words dt.unsafe, .words dd.unsafe { color: var(--warn); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); gap: 18px; }
figure { display: flex; flex-direction: column; background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 16px 16px 12px; }
figcaption { font-weight: 600; line-height: 1.35; }
figure p { flex: 1; color: var(--quiet); font-size: 13.5px; line-height: 1.45; margin-top: 2px; }
figure svg { display: block; width: 100%; height: auto; margin-top: 10px; }
svg text { font-size: 12px; fill: var(--quiet); font-family: inherit; }
svg text.words { fill: var(--ink); font-weight: 600; paint-order: stroke; stroke: var(--card); stroke-width: 4px;
  stroke-linejoin: round; }
svg .raised { font-size: 9px; }
svg .rule { stroke: var(--rule); stroke-width: 1; }
svg .axis, svg .notch { stroke: var(--quiet); stroke-width: 1; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .line-1, svg .line-2 { stroke: var(--one); }
svg .line-2 { stroke-dasharray: 2 5; }
svg .diagonal { stroke: var(--quiet); stroke-width: 1.25; stroke-dasharray: 5 4; }
svg .dot { fill: var(--one); stroke: none; }
svg .mark { fill: var(--two); stroke: var(--card); stroke-width: 1.5; }
details { margin-top: 8px; font-size: 13.5px; }
summary { color: var(--quiet); cursor: pointer; }
details div { max-height: 260px; overflow: auto; margin-top: 6px; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-top: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 400; }
thead th { border-top: 0; color: var(--quiet); }
td.number, .words span { white-space: nowrap; }
td.remark { color: var(--quiet); padding-right: 0; }
.facts-table { font-size: 14.5px; }
.facts-table th { width: 14em; }
.facts-table td { width: 17em; }
.facts-table td.remark { width: auto; }
.facts-table th.group { color: var(--quiet); font-size: 13.5px; font-weight: 600; padding-top: 18px; border-top: 0; }
.facts-table tbody:first-child th.group { padding-top: 0; }
footer { color: var(--quiet); font-size: 13.5px; margin-top: 40px; }
@media (max-width: 640px) {
  main { padding: 24px 14px 40px; }
  h1 { font-size: 25px; }
  .card { padding: 14px 16px; }
  .words { display: block; }
  .words dd { margin-bottom: 14px; }
  .facts { grid-template-columns: 1fr 1fr; }
  .facts > div { padding: 12px 14px; }
  .facts > div:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .facts dd { font-size: 19px; }
  figure { padding: 12px 10px 10px; }
  figcaption, figure p { padding: 0 4px; }
  .facts-table tr { display: block; border-top: 1px solid var(--rule); padding: 6px 0; }
  .facts-table tbody tr:first-child { border-top: 0; padding-bottom: 0; }
  .facts-table th, .facts-table td, .facts-table td.remark { display: block; width: auto; border: 0; padding: 0; }
  .facts-table th { color: var(--quiet); font-size: 13px; }
  td.number { white-space: normal; }
}
@page { margin: 16mm 14mm; }
@media print {
  :root {
    color-scheme: light; --paper: #ffffff; --card: #ffffff; --ink: #000000; --quiet: #444444; --rule: #e0e0e0; --edge: #bbbbbb;
    --one: #1f4f99; --two: #a94c12; --warn: #8f2d0a; --warn-paper: #ffffff;
  }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0 1px; }
  h2 { margin: 22pt 0 8pt; break-after: avoid; }
  .facts { grid-template-columns: repeat(5, 1fr); gap: 0; background: none; }
  .facts > div + div { border-left: 1px solid var(--edge); }
  .facts > div { padding: 8pt 10pt; }
  .facts dd { font-size: 13pt; }
  .facts dd small, .facts dt { font-size: 8.5pt; }
  .words { grid-template-columns: 8.5em 1fr; gap: 6pt 14pt; }
  .plots { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10pt; }
  .facts-table { font-size: 9pt; }
  .facts-table th, .facts-table td { padding: 3pt 10pt 3pt 0; }
  figure, .warning, .facts, .words, tr { break-inside: avoid; }
  details { display: none; }
}
)css";
}  // namespace dpmp::inline DPMP_ABI::train::detail
#endif
