// The messages between the processes of the soak test.

export interface ServerTask { task: 'memory' | 'counts' | 'close' }

export interface Memory {
  heap: number
  external: number
  rss: number
  /** The longest turn of the event loop since the last measurement, in milliseconds. */
  turn: number
}

export interface Counts {
  started: number
  finished: number
  failed: number
  /** Bytes of requests that were right. */
  bytes: number
  /** Chunks of requests with wrong bytes. */
  wrong: number
  /** Open connections. */
  connections: number
}

export interface ClientTask {
  task: 'hold' | 'talk' | 'short' | 'go' | 'stop'
  port: number
  path: string
  connections: number
  /** The number of this client process, and how many there are: each uses other exchange numbers. */
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
