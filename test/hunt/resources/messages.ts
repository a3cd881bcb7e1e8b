// The messages between the processes of the resource hunt.

/** Configures the app of one server process. */
export interface AppConfig {
  /** With the plugin, or with Fastify alone and the closest equivalent. */
  kind: 'duplex' | 'plain'
  transport: Transport
  /** Routes have an asynchronous constraint, so that the plugin uses Node's request and response. */
  routesLate: boolean
  /** `connectionTimeout` of the app in milliseconds, 0 for none. It applies to ordinary responses before exchanges. */
  connectionTimeout: number
  /** `maxExchanges`, for all routes together. */
  slots: number
  /** Port of the target of CONNECT. */
  target: number
}

export type Transport = 'tcp' | 'tls' | 'unix' | 'http2'

export type Address = { port: number, host: string } | { path: string }

/** `sample` collects garbage first. `release` releases the handlers and hooks that wait. */
export type Task = 'sample' | 'peak' | 'release' | 'resources' | 'close'

export interface Sample {
  /** Bytes after a collection: the heap and external memory, which includes buffers. */
  memory: number
  rss: number
  /** Milliseconds of the longest turn of the event loop since the last sample. */
  longestTurn: number
  /** Open file descriptors. Null if the system does not report them. */
  descriptors: number | null
  /** Active handles of Node, for example connections. */
  handles: number
  connections: number
  /** Requests of duplex routes, or of their plain counterparts, whose onResponse hook has not run. */
  inProgress: number
  /** Requests whose onResponse hook has run. */
  answered: number
}

/** The highest values since the last peak, without a collection. */
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
  /** A request that is sent once and answered before the flood. */
  first: string
  /** The requests of the flood. Their order depends on the seed. */
  requests: string[]
  seed: number
  /** The clients read the answers. */
  reads: boolean
  connections: number
  milliseconds: number
}

export interface FloodReport {
  /** Bytes that were sent. */
  sent: number
  /** Connections that the server has closed. */
  closed: number
}
