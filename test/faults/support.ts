// The faults of clients, the apps that must bear them, and their requests.

import { once } from 'node:events'
import { createServer } from 'node:http'
import { type AddressInfo, type NetConnectOpts, type Socket, connect } from 'node:net'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Test } from 'tap'
import { Ledger } from '../support/ledger.ts'
import { type ServeOptions, type Setup, type Transport, type Wire, dial, serve } from '../support/wire.ts'

export type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

/** Told apart: a reset alone; a FIN, and a reset when anything is written; a FIN of a client that still listens. */
export const FAULTS = ['reset', 'leave', 'end', 'garbage', 'stall'] as const
export type Fault = typeof FAULTS[number]

/** No request line, and nothing that could stand where a request has framing. */
export const GARBAGE = '\0\xff\x01'.repeat(10)

export function inject (fault: Fault, { socket }: Wire, transport: Transport): void {
  if (fault === 'reset' && transport === 'tcp') {
    // What resetAndDestroy() does after it has ended its side.
    (socket as Socket & { resetAndClosing: boolean }).resetAndClosing = true
    socket.destroy()
  } else if (fault === 'leave' && transport === 'tcp') {
    socket.resetAndDestroy()
  } else if (fault === 'reset' || fault === 'leave') {
    socket.destroy()
  } else if (fault === 'end') {
    socket.end()
  } else if (fault === 'garbage') {
    socket.end(GARBAGE, 'latin1')
  }
}

let ids = 0
export const newId = (): string => String(ids++)

export interface Started { app: FastifyInstance, ledger: Ledger, connect: () => Promise<Wire> }

/** An app with a ledger, and with short timeouts. */
export async function start (t: Test, transport: Transport, setup: Setup, { fastify, plugin }: ServeOptions = {}): Promise<Started> {
  const ledger = new Ledger()
  const { app } = await serve(t, transport, (app) => {
    ledger.keep(t, app)
    app.get('/plain', async () => 'plain')
    return setup(app)
  }, {
    fastify: { ...ledger.options, keepAliveTimeout: 50, ...fastify },
    plugin: { idleTimeout: 100, drainTimeout: 100, ...plugin }
  })
  // Where Node has it: a second more than the keepAliveTimeout.
  Object.assign(app.server, { keepAliveTimeoutBuffer: 0 })
  const address = app.server.address()
  const to = (typeof address === 'string' ? { path: address } : { port: address!.port, host: '127.0.0.1' }) as NetConnectOpts
  return { app, ledger, connect: () => dial(transport, to) }
}

/** Makes a connection idle, at once: the event that Node emits after a time without a byte. */
export async function fallSilent (ledger: Ledger, id: string): Promise<void> {
  const socket = await ledger.socket(id)
  await immediate()
  socket.emit('timeout')
}

/** So that nothing is ended that is only slow. */
export const NO_IDLE_TIMEOUT = { idleTimeout: 60_000 }

let faults = 0

/** The next client is served: after every third fault, for the time it takes. */
export async function plain (connect: () => Promise<Wire>): Promise<void> {
  if (faults++ % 3 > 0) return
  const wire = await connect()
  const { body } = await wire.request(`GET /plain HTTP/1.1\r\nHost: a\r\nX-Id: ${newId()}\r\nConnection: close\r\n\r\n`)
  if (body !== 'plain') throw new Error('the next client is not served')
  await wire.ended
  wire.socket.destroy()
}

/** Waits until the connection has ended, and checks that the next client is served. */
export async function untilEnded (wire: Wire, connect: () => Promise<Wire>): Promise<void> {
  await wire.ended
  wire.socket.destroy()
  await plain(connect)
}

/**
 * Whether a response of Node's own emits 'finish' when its connection is lost before all of it is sent. Node 24.21 and 26.12
 * do not; Node 20, 22, 25.9 and 26.0 do. Measured without Fastify and without the plugin.
 */
export async function doLostAnswersFinish (): Promise<boolean> {
  const server = createServer((_request, response) => {
    response.end(Buffer.alloc(16e6))
    setImmediate(() => client.destroy())
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = connect(port, '127.0.0.1').pause()
  client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  const [, response] = await once(server, 'request')
  let finished = false
  response.on('finish', () => { finished = true })
  await once(response, 'close')
  await immediate()
  server.close()
  return finished
}

/** As many at once as do not get in each other's way. */
export async function each<T> (items: readonly T[], action: (item: T) => Promise<unknown>, atOnce = 100): Promise<void> {
  const left = items.values()
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (const item of left) await action(item)
  }))
}

export function closed (socket: Socket): Promise<void> {
  return new Promise((resolve) => { socket.on('close', () => resolve()) })
}

export const HANDLERS: Record<string, Handler> = {
  /** The head goes out before anything is read. */
  both: async (request, { duplex }) => {
    duplex.flushHeaders()
    await pipeline(duplex, duplex)
  },
  echo: async (request, { duplex }) => pipeline(duplex, duplex),
  /** Answers when the request is complete. */
  upload: async (request, { duplex }) => {
    let size = 0
    for await (const chunk of duplex) size += chunk.length
    duplex.end(String(size))
  },
  generator: async function * (request, reply) { yield * reply.duplex },
  /** Reads nothing: the body is dropped. */
  download: (request, { duplex }) => duplex.end('here you are'),
  /** The same, by Node's own response. */
  refuse: async (request, reply) => reply.code(403).send('no'),
  /** Neither reads nor writes, and never returns. */
  mute: async (request, { duplex }) => { await once(duplex, 'nothing') }
}

export function routes (app: FastifyInstance): void {
  for (const [name, handler] of Object.entries(HANDLERS)) app.post(`/${name}`, { duplex: true }, handler)
}

export const CHUNKED = 'Transfer-Encoding: chunked\r\n'
export const CHUNKED_BODY = '5;a;b="c\\"d" ; e = f\r\nhello\r\n6\r\n world\r\n0;last\r\nx-sum: 1\r\nx-more: 2\r\n\r\n'
export const REQUESTS: [name: string, fields: string, body: string][] = [
  ['chunked', CHUNKED, CHUNKED_BODY],
  ['of a length', 'Content-Length: 11\r\n', 'hello world'],
  ['with Expect', 'Expect: 100-continue\r\nContent-Length: 11\r\n', 'hello world'],
  ['pipelined', CHUNKED, CHUNKED_BODY]
]

export function post (url: string, id: string, fields: string): string {
  return `POST /${url} HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\n${fields}\r\n`
}
