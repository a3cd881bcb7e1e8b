// Compares the results with their targets.

import { markdownTable } from './report.ts'
import type { Close } from './measures/close.ts'
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

const STYLES = ['plugin', 'plugin-yield', 'plugin-iterate', 'plugin-write', 'plugin-items']

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
  ...STYLES.map((peer) => ({ column: 'round-trips', peer, against: 'fastify', atLeast: 1.2 })),
  { column: 'exchanges', against: 'fastify', atLeast: 1.15 },
  ...['plugin-yield', 'plugin-iterate', 'plugin-write'].flatMap((peer) => [
    { column: 'exchanges', peer, against: 'fastify', atLeast: 1.15 },
    { column: 'exchanges', peer, against: 'http', atLeast: 0.9 }
  ]),
  { column: 'idle', atMost: 14 },
  ...STYLES.slice(1).map((peer) => ({ column: 'idle', peer, against: 'fastify', atMost: 0.7 })),
  ...['plugin-iterate', 'plugin-yield', 'plugin-iterate-gc', 'plugin-yield-gc'].flatMap((peer) => [1024, 16384, 65536].map((size) => (
    { column: `echo-${size}`, peer, against: 'plugin', atLeast: 0.6 }
  ))),
  { column: 'echo-64', peer: 'plugin-iterate', against: 'plugin', atLeast: 0.5 },
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
/** Seconds of `app.close()`. */
const CLOSE_AT_MOST = 2

export function reportTargets (results: Results, routes: Routes[], closed: Close[]): string {
  const rows = TARGETS.map((target) => judge(target, results))
  for (const { what, ratio } of routes) {
    rows.push([`${what} with the plugin, against without it`, `≥ ${ROUTES_AT_LEAST}`, ratio.toFixed(3), '-', verdict(ratio >= ROUTES_AT_LEAST)])
  }
  for (const { what, open, seconds, processorSeconds } of closed) {
    rows.push([`app.close(), ${open} exchanges ${what}`, `≤ ${CLOSE_AT_MOST} s`, processorSeconds.toFixed(2), seconds.toFixed(2), verdict(seconds <= CLOSE_AT_MOST)])
  }
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
