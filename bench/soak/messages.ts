// What the processes of the soak tell each other.

export interface ServerTask { task: 'memory' | 'counts' | 'close' }

export interface Memory {
  heap: number
  external: number
  rss: number
  /** The longest turn of the event loop since the last time, in milliseconds. */
  turn: number
}

export interface Counts {
  started: number
  finished: number
  failed: number
  /** Bytes of requests that were what they should be. */
  bytes: number
  wrong: number
  /** Connections that are open. */
  connections: number
}

export interface ClientTask {
  task: 'hold' | 'talk' | 'short' | 'go' | 'stop'
  port: number
  path: string
  connections: number
  /** This client of so many, for numbers of its own. */
  index: number
  clients: number
}

export interface ClientReport {
  opened: number
  ended: number
  halfClosed: number
  cutOff: number
  reset: number
  messages: number
  bytes: number
  wrong: string[]
}

export type ClientEvent = { event: 'open' } | { event: 'done', report: ClientReport }
