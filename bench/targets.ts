// Compares the results with their targets.

import { markdownTable } from './report.ts'
import type { Routes } from './measures/routes.ts'
import { PROXY } from './proxies.ts'
import { type By, type Results, figure, ratio } from './results.ts'

interface Target {
  column: string
  /** Id of the peer to compare with. Without it, the figure itself is the target. */
  against?: string
  /** Id of the peer that is judged. Default: `plugin`. */
  peer?: string
  atLeast?: number
  atMost?: number
  /** A goal beyond the target: missing it is no failure. */
  isStretch?: boolean
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
  { column: 'echo-64', peer: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
  { column: 'echo-1024', peer: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
  { column: 'echo-16384', peer: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
  { column: 'echo-65536', peer: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
  ...['items-yield', 'items-send', 'items-batches'].flatMap((peer) => ['large', 'single'].flatMap((shape) => [
    { column: `items-${shape}`, peer, against: 'items-fastify', atLeast: shape === 'large' ? 3 : 10 },
    { column: `items-${shape}`, peer, against: 'items-websocket', atLeast: 1 },
    { column: `items-${shape}`, peer, against: 'items-grpc', atLeast: 1 },
    { column: `items-${shape}`, peer, against: 'items-go', atLeast: 1 },
    { column: `items-${shape}`, peer, against: 'items-limit', atLeast: 0.6 }
  ])),
  ...['up', 'down'].flatMap((direction) => [
    { column: `proxy-${direction}-64`, peer: PROXY, against: 'proxy-fastify', atLeast: 5 },
    { column: `proxy-${direction}-1024`, peer: PROXY, against: 'proxy-fastify', atLeast: 5 },
    { column: `proxy-${direction}-16384`, peer: PROXY, against: 'proxy-fastify', atLeast: 1.5 },
    { column: `proxy-${direction}-65536`, peer: PROXY, against: 'proxy-fastify', atLeast: 1.5 },
    { column: `proxy-${direction}-16384`, peer: PROXY, against: 'proxy-haproxy', atLeast: 0.5 },
    { column: `proxy-${direction}-65536`, peer: PROXY, against: 'proxy-haproxy', atLeast: 0.5 }
  ]),
  { column: 'proxy-round-trips', peer: PROXY, against: 'proxy-fastify', atLeast: 1.5 },
  { column: 'proxy-exchanges', peer: PROXY, against: 'proxy-fastify', atLeast: 1.2 },
  { column: 'echo-1024', against: 'net', atLeast: 1, isStretch: true },
  { column: 'echo-16384', against: 'net', atLeast: 1, isStretch: true },
  { column: 'echo-65536', against: 'net', atLeast: 1, isStretch: true }
]
const ROUTES_AT_LEAST = 0.99

export function reportTargets (results: Results, routes: Routes | null): string {
  const rows = TARGETS.map((target) => judge(target, results))
  if (routes !== null) rows.push(['ordinary routes with the plugin, against without it', `≥ ${ROUTES_AT_LEAST}`, routes.ratio.toFixed(3), '-', verdict(routes.ratio >= ROUTES_AT_LEAST)])
  return markdownTable(['', 'target', 'reached', 'by wall-clock time', ''], rows)
}

function judge ({ column: id, against, peer = 'plugin', atLeast, atMost, isStretch }: Target, { columns }: Results): string[] {
  const what = [id, peer === 'plugin' ? '' : peer, against === undefined ? '' : `against ${against}`].filter((part) => part !== '').join(' ')
  const aim = atLeast !== undefined ? `≥ ${atLeast}` : `≤ ${atMost}`
  const column = columns.find((column) => column.id === id)
  const reach = (by: By): number | null => {
    if (column === undefined) return null
    return against === undefined ? figure(column, peer, by) : ratio(column, peer, against, by)
  }
  const reached = reach('processor')
  if (reached === null) return [what, aim, '-', '-', 'not measured']
  const isReached = atLeast !== undefined ? reached >= atLeast : reached <= atMost!
  return [what, aim, reached.toFixed(2), reach('clock')!.toFixed(2), isStretch && !isReached ? 'not reached' : verdict(isReached)]
}

function verdict (isReached: boolean): string {
  return isReached ? 'pass' : 'MISSED'
}
