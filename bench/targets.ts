// What was to be reached, beside what was.

import { markdownTable } from './report.ts'
import type { Routes } from './measures/routes.ts'
import { type By, type Results, figure, ratio } from './results.ts'

interface Target {
  column: string
  /** Against whom; without: the figure itself. */
  against?: string
  /** Default: the plugin through `pipeline`. */
  who?: string
  atLeast?: number
  atMost?: number
  /** For whoever wants the record. */
  extra?: boolean
}

const TARGETS: Target[] = [
  { column: 'echo-64', against: 'fastify', atLeast: 100 },
  { column: 'echo-1024', against: 'fastify', atLeast: 15 },
  { column: 'echo-16384', against: 'fastify', atLeast: 2.3 },
  { column: 'echo-65536', against: 'fastify', atLeast: 1.4 },
  { column: 'echo-64', against: 'go-best', atLeast: 1 },
  { column: 'echo-1024', against: 'go-best', atLeast: 1 },
  { column: 'echo-16384', against: 'go-best', atLeast: 1 },
  { column: 'echo-65536', against: 'go-best', atLeast: 1 },
  { column: 'echo-64', against: 'net', atLeast: 0.33 },
  { column: 'echo-1024', against: 'net', atLeast: 0.85 },
  { column: 'echo-16384', against: 'net', atLeast: 0.85 },
  { column: 'echo-65536', against: 'net', atLeast: 0.85 },
  { column: 'round-trips', against: 'fastify', atLeast: 1.2 },
  { column: 'exchanges', against: 'fastify', atLeast: 1.15 },
  { column: 'idle', atMost: 14 },
  { column: 'echo-64', who: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
  { column: 'echo-1024', who: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
  { column: 'echo-16384', who: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
  { column: 'echo-65536', who: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
  { column: 'echo-1024', against: 'net', atLeast: 1, extra: true },
  { column: 'echo-16384', against: 'net', atLeast: 1, extra: true },
  { column: 'echo-65536', against: 'net', atLeast: 1, extra: true }
]
const ROUTES_AT_LEAST = 0.99

export function reportTargets (results: Results, routes: Routes | null): string {
  const rows = TARGETS.map((target) => judge(target, results))
  if (routes !== null) rows.push(['ordinary routes, with the plugin against without', `≥ ${ROUTES_AT_LEAST}`, routes.ratio.toFixed(3), '-', verdict(routes.ratio >= ROUTES_AT_LEAST)])
  return markdownTable(['', 'to reach', 'reached', 'by the clock', ''], rows)
}

function judge ({ column: id, against, who = 'plugin', atLeast, atMost, extra }: Target, { columns }: Results): string[] {
  const what = [id, who === 'plugin' ? '' : who, against === undefined ? '' : `against ${against}`].filter((part) => part !== '').join(' ')
  const aim = atLeast !== undefined ? `≥ ${atLeast}` : `≤ ${atMost}`
  const column = columns.find((column) => column.id === id)
  const reach = (by: By): number | null => {
    if (column === undefined) return null
    return against === undefined ? figure(column, who, by) : ratio(column, who, against, by)
  }
  const reached = reach('processor')
  if (reached === null) return [what, aim, '-', '-', 'not measured']
  const right = atLeast !== undefined ? reached >= atLeast : reached <= atMost!
  return [what, aim, reached.toFixed(2), reach('clock')!.toFixed(2), extra && !right ? 'no record' : verdict(right)]
}

function verdict (right: boolean): string {
  return right ? 'pass' : 'SHORT'
}
