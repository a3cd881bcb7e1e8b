// What the processes of the resource hunt tell each other.

/** The app of one server process. */
export interface AppConfig {
  /** With the plugin, or Fastify alone doing the nearest thing. */
  kind: 'duplex' | 'plain'
  transport: Transport
  /** Routes with an asynchronous constraint: Node reads and writes, also with the plugin. */
  deferred: boolean
  /** The app's, in milliseconds; 0: none. It is not for exchanges, but for ordinary responses before them. */
  connectionTimeout: number
  /** `maxExchanges` of all routes together. */
  slots: number
  /** Where CONNECT leads to. */
  target: number
}

export type Transport = 'tcp' | 'tls' | 'unix' | 'http2'

export type Address = { port: number, host: string } | { path: string }

/** `sample` collects garbage first. `release` lets go the handlers and hooks that wait. */
export type Task = 'sample' | 'peak' | 'release' | 'resources' | 'close'

export interface Sample {
  /** Bytes, after a collection: the heap, and what it refers to outside (buffers included). */
  memory: number
  rss: number
  /** Milliseconds of the longest turn of the event loop since the last sample. */
  longestTurn: number
  /** Null where the system does not tell. */
  descriptors: number | null
  /** Handles that Node knows, connections and the like. */
  handles: number
  connections: number
  /** Requests of duplex routes (of their plain counterparts) whose onResponse hooks have not run. */
  inProgress: number
  /** Requests whose onResponse hooks have run. */
  answered: number
}

/** Without a collection: the highest seen since the last time. */
export interface Peak {
  memory: number
  rss: number
  longestTurn: number
  answered: number
}

export interface ToServer { id: number, task: Task }

export type FromServer = { listening: Address } | { id: number, result: unknown }

export interface FloodConfig {
  address: Address
  transport: Transport
  /** Sent once, before the flood; its response is awaited. */
  first: string
  /** The requests that are sent again and again, in an order from the seed. */
  requests: string[]
  seed: number
  /** Whether answers are read. */
  reads: boolean
  connections: number
  milliseconds: number
}

export interface FloodReport {
  /** Bytes that the server has taken. */
  sent: number
  /** Connections that the server has closed. */
  closed: number
}
