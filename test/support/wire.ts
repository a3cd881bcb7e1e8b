// A server under test and a raw client for it: bytes out, responses in, read with the project's own reader, which is
// itself compared with others in transfer/. Nothing here waits for time to pass.

import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as immediate } from 'node:timers/promises'
import tls from 'node:tls'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import type { Test } from 'tap'
import duplex from '../../lib/index.ts'
import { type BodyReader, NO_BYTES } from '../../lib/transfer/body-reader.ts'
import { bodyReader, receivedFraming } from '../../lib/transfer/framing.ts'
import { ResponseHeadReader, type ResponseHead } from '../../lib/transfer/head-reader.ts'

export const TLS = {
  key: readFileSync(join(__dirname, 'tls/key.pem')),
  cert: readFileSync(join(__dirname, 'tls/cert.pem'))
}

export const TRANSPORTS = ['tcp', 'tls', 'unix'] as const
export type Transport = typeof TRANSPORTS[number]

export interface Line { level: number, msg: string, err?: { code: string, message: string }, res?: { statusCode: number }, responseTime?: number }

export interface Served {
  app: FastifyInstance
  /** What the app has logged. */
  log: Line[]
  /** Resolves with the next line logged with this message. */
  logged: (msg: string) => Promise<Line>
  connect: () => Promise<Wire>
  port: number
}

let sockets = 0

/** A unique path to listen on: of a Unix socket, or of a named pipe on Windows. */
export function socketPath (): string {
  const name = `fastify-duplex-${process.pid}-${sockets++}.sock`
  return process.platform === 'win32' ? `\\\\.\\pipe\\${name}` : join(tmpdir(), name)
}

export type Setup = (app: FastifyInstance) => unknown

export interface ServeOptions {
  /** Options of the app. */
  fastify?: object
  /** Options of the plugin. */
  plugin?: object
  /** Called before the plugin is registered. */
  before?: Setup
}

/** Starts an app with the plugin on one transport. It is closed when the test ends. */
export async function serve (t: Test, transport: Transport, setup: Setup, { fastify = {}, plugin = {}, before = () => {} }: ServeOptions = {}): Promise<Served> {
  const log: Line[] = []
  const waiting: [string, (line: Line) => void][] = []
  const stream = {
    write (text: string) {
      const line = JSON.parse(text)
      log.push(line)
      for (const [msg, resolve] of waiting.splice(0)) {
        if (line.msg === msg) resolve(line)
        else waiting.push([msg, resolve])
      }
    }
  }
  const app = Fastify({ logger: { stream }, forceCloseConnections: true, ...(transport === 'tls' ? { https: TLS } : {}), ...fastify } as FastifyServerOptions) as FastifyInstance
  t.teardown(() => app.close())
  await before(app)
  await app.register(duplex, { closeGrace: 0, ...plugin })
  await setup(app)
  const path = socketPath()
  await app.listen(transport === 'unix' ? { path } : { port: 0, host: '127.0.0.1' })
  const port = transport === 'unix' ? 0 : (app.server.address() as net.AddressInfo).port
  return {
    app,
    log,
    port,
    logged: (msg) => new Promise((resolve) => { waiting.push([msg, resolve]) }),
    async connect () {
      const wire = await dial(transport, transport === 'unix' ? { path } : { port, host: '127.0.0.1' })
      t.teardown(() => wire.socket.destroy())
      return wire
    }
  }
}

/** A connection that is open, and stays half-open when the server has ended its side. */
export async function dial (transport: Transport, address: net.NetConnectOpts): Promise<Wire> {
  const options = { ...address, allowHalfOpen: true }
  const socket = transport === 'tls' ? tls.connect({ ...options, rejectUnauthorized: false }) : net.connect(options)
  await once(socket, transport === 'tls' ? 'secureConnect' : 'connect')
  return new Wire(socket)
}

export interface Response extends ResponseHead {
  body: string
  trailers: Record<string, string>
}

export class Wire {
  readonly socket: net.Socket
  /** Settles when the server has ended its side, or the connection is gone. */
  readonly ended: Promise<void>
  private received = NO_BYTES
  private isEnded = false
  private wake = (): void => {}
  private reader: BodyReader | null = null
  private content_ = NO_BYTES

  constructor (socket: net.Socket) {
    this.socket = socket
    socket.setNoDelay(true)
    socket.on('data', (chunk: Buffer) => {
      this.received = Buffer.concat([this.received, chunk])
      this.wake()
    })
    socket.on('error', () => {})
    this.ended = new Promise((resolve) => {
      const end = (): void => {
        this.isEnded = true
        this.wake()
        resolve()
      }
      socket.on('end', end)
      socket.on('close', end)
    })
  }

  /** Bytes that have come, and that no call of this class has taken yet. */
  get pending (): number {
    return this.received.length
  }

  send (bytes: string | Buffer): this {
    this.socket.write(bytes as string, 'latin1')
    return this
  }

  /** The next head, with its body still to come. Interim heads count. */
  async head (method = 'GET'): Promise<ResponseHead> {
    const reader = new ResponseHeadReader(65536)
    while (reader.head === null) {
      const chunk = await this.more()
      if (chunk === null) reader.end()
      else reader.read(chunk)
      if (reader.error !== null) throw reader.error
      if (reader.head === null) this.received = NO_BYTES
      else this.received = chunk!.subarray(reader.consumed)
    }
    this.reader = bodyReader(receivedFraming(method, reader.head.statusCode, reader.head.fields, reader.head.minorVersion), { maxTrailerSize: 65536, maxChunkExtensionSize: 0 })
    this.content_ = NO_BYTES
    return reader.head
  }

  /** Waits for at least `size` bytes of the body. Returns all that have come since the last call. */
  async content (size = 1): Promise<string> {
    while (this.content_.length < size && !this.reader!.done) await this.readOn()
    const content = this.content_.toString('latin1')
    this.content_ = NO_BYTES
    return content
  }

  /** The rest of the body. Throws if it is cut off. */
  async body (): Promise<string> {
    while (!this.reader!.done) await this.readOn()
    return this.content()
  }

  /** The next response, whole. */
  async response (method = 'GET'): Promise<Response> {
    const head = await this.head(method)
    const body = await this.body()
    return { ...head, fields: { ...head.fields }, body, trailers: { ...this.reader!.trailers } }
  }

  /** Sends a request and reads its response. */
  request (bytes: string, method = bytes.slice(0, bytes.indexOf(' '))): Promise<Response> {
    return this.send(bytes).response(method)
  }

  private async readOn (): Promise<void> {
    const chunk = await this.more()
    const reader = this.reader!
    if (chunk === null) {
      reader.end()
    } else {
      this.content_ = Buffer.concat([this.content_, reader.read(chunk)])
      this.received = chunk.subarray(reader.consumed)
    }
    if (reader.error !== null) throw reader.error
  }

  private async more (): Promise<Buffer | null> {
    while (this.received.length === 0) {
      if (this.isEnded) return null
      await new Promise<void>((resolve) => { this.wake = resolve })
    }
    return Buffer.from(this.received)
  }
}

/** A request with a chunked body. */
export function chunked (path: string, ...chunks: string[]): string {
  return `POST ${path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunks.map(chunk).join('')}0\r\n\r\n`
}

export function chunk (content: string): string {
  return `${content.length.toString(16)}\r\n${content}\r\n`
}

export const OPEN = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n`
export const GET = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`

export function hash (content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex')
}

/** Waits until 500 turns of the event loop have brought no progress. There is no event for that. */
export async function untilStuck (progress: () => number): Promise<void> {
  for (let turns = 0, before = -1; turns < 500; turns++) {
    await immediate()
    if (progress() !== before) turns = 0
    before = progress()
  }
}

/** How a client sees a response that is cut off. */
/** The log line for a client that has left, as Fastify's own for a stream that it sends. */
export const LEFT = 'stream closed prematurely'

export const CUT_OFF = { code: 'FST_ERR_DUPLEX_TRUNCATED' }

export const UPGRADE = (path: string, fields = '', method = 'GET'): string =>
  `${method} ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n${fields}\r\n`
export const CONNECT = (target: string, fields = ''): string => `CONNECT ${target} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`

/** The server's end of the connection. */
export async function accepted (app: FastifyInstance, connect: () => Promise<Wire>): Promise<[Wire, net.Socket]> {
  const accepted = once(app.server, 'connection') as Promise<[net.Socket]>
  return [await connect(), (await accepted)[0]]
}

export function resolvers<T = void> (): { promise: Promise<T>, resolve: (value: T) => void } {
  let resolve!: (value: T) => void
  const promise = new Promise<T>((_resolve) => { resolve = _resolve })
  return { promise, resolve }
}
