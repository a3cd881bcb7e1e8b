// The listeners that Node's connection listener puts on a socket, found by their function names in lib/_http_server.js.

import type { Duplex } from 'node:stream'

type Listener = (...args: any[]) => void

const NAMES = { data: 'bound socketOnData', end: 'bound socketOnEnd', timeout: 'socketOnTimeout', error: 'socketOnError' }

export type Listeners = Record<keyof typeof NAMES, Listener>

const EVENTS = Object.keys(NAMES) as (keyof Listeners)[]

/** Node's own listeners on a socket; null if one of them is missing. */
export function findListeners (socket: Duplex): Listeners | null {
  const found: Partial<Listeners> = {}
  for (const event of EVENTS) {
    const listener = socket.listeners(event).find((listener) => listener.name === NAMES[event])
    if (listener === undefined) return null
    found[event] = listener as Listener
  }
  return found as Listeners
}

/** Replaces the listeners `off` with `on`, except those for 'error', which change with each exchange. */
export function swapListeners (socket: Duplex, off: Listeners, on: Listeners): void {
  for (const event of EVENTS) {
    if (event === 'error') continue
    socket.removeListener(event, off[event])
    socket.on(event, on[event])
  }
}

/** Whether the first 'data' listener makes Node stop feeding the parser from the handle. */
export function stopsFeedingOnListen (socket: Duplex): boolean {
  return socket.on.name === 'socketListenerWrap'
}
