// The states in which a hostile client can hold an exchange or a connection, and how the client gets there.

import { setTimeout as sleep } from 'node:timers/promises'
import { BOTH_DIRECTIONS, IDLE_TIMEOUT, ONE_DIRECTION, QUIET } from './bounds.ts'
import { Connection, type HostileClient } from './connection.ts'
import type { Address, Transport } from './messages.ts'
import type { Random } from '../../support/random.ts'
import { Session } from './streams.ts'
import type { Target } from './targets.ts'

/** The clients leave, or stay silent until the server ends their exchanges, or the app is closed while they are connected. */
export const ENDINGS = ['leave', 'stay', 'close'] as const
export type Ending = typeof ENDINGS[number]

export interface State {
  name: string
  transport: Transport
  /** The plugin uses Node's request and response, because the route has an asynchronous constraint. */
  routesLate: boolean
  /** Bytes of memory that one client may cost. */
  memory: number
  /** How many requests of one client are at least in progress in this state. */
  inProgress: number
  /** How many slots of `maxExchanges` one client takes at most. */
  slots: number
  /** Fastify alone has an equivalent of this state. */
  hasPlain: boolean
  /** What the other side of a CONNECT tunnel does. */
  target: Target
  /** The handlers and hooks that wait are released when the clients have left. */
  releasesHandlers: boolean
  /** `connectionTimeout` of the app in milliseconds, 0 for none. States with an ordinary response need it. */
  connectionTimeout: number
  /** The ending in the first round. */
  ending: Ending
  /** The usual number of clients is multiplied by this. */
  times: number
  enter: (address: Address, random: Random) => Promise<HostileClient>
}

type Enter = (connection: Connection, random: Random) => Promise<unknown> | unknown

const FIELDS = 'Host: a\r\nContent-Type: application/octet-stream\r\n'

/** A request whose body is still to come. */
export function open (path: string, method = 'POST'): string {
  return `${method} ${path} HTTP/1.1\r\n${FIELDS}Transfer-Encoding: chunked\r\n\r\n`
}

/** A request without a body. */
export function whole (path: string, method = 'POST'): string {
  return `${method} ${path} HTTP/1.1\r\n${FIELDS}${method === 'POST' ? 'Content-Length: 0\r\n' : ''}\r\n`
}

const CHUNK = '5\r\nhello\r\n'
const LAST_CHUNK = '0\r\n\r\n'
const CONNECT = 'CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n'
const ATTACH = 'GET /attach HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\n'

function state (name: string, memory: number, enter: Enter, options: Partial<Omit<State, 'enter'>> = {}): State {
  const { transport = 'tcp' } = options
  return {
    name,
    memory,
    transport,
    routesLate: false,
    inProgress: 1,
    slots: 1,
    hasPlain: true,
    target: 'silent',
    releasesHandlers: true,
    connectionTimeout: 0,
    ending: 'leave',
    times: 1,
    ...options,
    enter: async (address, random) => {
      const connection = await Connection.open(address, transport)
      await enter(connection, random)
      return connection
    }
  }
}

// Ways to enter a state

const idle = (path: string): Enter => (connection) => connection.read().send(open(path) + CHUNK).waitFor('hello')

const fill = (path: string): Enter => async (connection) => {
  await connection.read().send(open(path) + CHUNK).waitFor('\r\n\r\n')
  await connection.fill()
}

/** Does not read, so that the response fills the buffers of both sockets. */
const readNothing = (path: string, method = 'POST'): Enter => (connection) => { connection.send(whole(path, method)) }

const fillBoth = (path: string): Enter => async (connection) => {
  connection.send(open(path))
  await connection.fill()
}

const queue = (first: string): Enter => async (connection, random) => {
  connection.send(first)
  const requests = Array.from({ length: 1000 + random.below(3000) }, () => random.chance(0.5) ? whole('/short') : open('/turn') + CHUNK + LAST_CHUNK)
  connection.send(requests.join(''))
}

async function completeExchange (connection: Connection): Promise<void> {
  await connection.read().send(open('/short') + CHUNK + LAST_CHUNK).waitFor('ok 5')
}

/** Sends a byte from time to time, so that no timeout expires. */
async function trickle (connection: Connection): Promise<void> {
  const timer = setInterval(() => connection.send('1\r\nx\r\n'), 100)
  connection.socket.on('close', () => clearInterval(timer))
}

/** Sends `count` blocks, as fast as the server reads them. */
async function pour ({ socket }: Connection, block: string, count: number): Promise<void> {
  const buffer = Buffer.from(block)
  for (let i = 0; i < count && !socket.destroyed; i++) {
    if (!socket.write(buffer)) await Promise.race([new Promise((resolve) => { socket.once('drain', resolve) }), sleep(100)])
  }
}

async function endlessExtension (connection: Connection): Promise<void> {
  connection.read().send(open('/echo/loop') + '5')
  await pour(connection, `;${'a'.repeat(1023)}`.repeat(16), 32)
}

async function endlessTrailers (connection: Connection): Promise<void> {
  connection.read().send(open('/echo/loop') + CHUNK + '0\r\n')
  await pour(connection, `a: ${'b'.repeat(1019)}\r\n`.repeat(16), 32)
}

async function tinyChunks (connection: Connection): Promise<void> {
  connection.read().send(open('/short'))
  await pour(connection, '1\r\nx\r\n'.repeat(2500), 4)
}

const tunnel = (stuck: boolean): Enter => async (connection) => {
  if (!stuck) connection.read()
  connection.send(CONNECT)
  if (stuck) await connection.fill(Buffer.alloc(0x10000))
  else await connection.waitFor('\r\n\r\n') // before that, the tunnel is not open
}

/** Keeps sending while the target of the tunnel leaves. */
async function keepSending (connection: Connection): Promise<void> {
  connection.read().send(CONNECT)
  const timer = setInterval(() => connection.send('hello'), 1)
  await Promise.race([connection.ended, sleep(100)])
  clearInterval(timer)
}

async function attach (connection: Connection): Promise<void> {
  await connection.read().send(ATTACH + 'hello').waitFor('hello')
}

async function attachStuck (connection: Connection): Promise<void> {
  connection.send(ATTACH)
  await connection.fill(Buffer.alloc(0x10000))
}

const session = (path: string, reads: boolean, streams: number) => async (address: Address): Promise<HostileClient> => {
  const hostile = await Session.open(address)
  for (let i = 0; i < streams; i++) {
    const stream = hostile.request(path, reads)
    if (!reads) stream.write(Buffer.alloc(0x20000))
  }
  return hostile
}

/** How many streams one session has. */
const STREAMS = 10

function streams (name: string, memory: number, path: string, reads: boolean): State {
  return { ...state(name, memory * STREAMS, () => {}, { transport: 'http2', inProgress: STREAMS, slots: STREAMS }), enter: session(path, reads, STREAMS) }
}

export const STATES: readonly State[] = [
  state('waiting in an async hook', ONE_DIRECTION, async (connection) => {
    connection.send(open('/hook'))
    await connection.fill()
  }),
  state('handler reads nothing', ONE_DIRECTION, fill('/unread')),
  state('handler pauses', ONE_DIRECTION, fill('/paused')),
  state('response stuck, generator', ONE_DIRECTION, readNothing('/download/generator')),
  state('response stuck, pipeline', ONE_DIRECTION, readNothing('/download/pipeline')),
  state('both directions stuck, pipeline', BOTH_DIRECTIONS, fillBoth('/echo/pipeline')),
  state('both directions stuck, loop', BOTH_DIRECTIONS, fillBoth('/echo/loop')),
  state('both directions stuck, TLS', BOTH_DIRECTIONS, fillBoth('/echo/pipeline'), { transport: 'tls' }),
  state('both directions stuck, unix', BOTH_DIRECTIONS, fillBoth('/echo/loop'), { transport: 'unix' }),
  state('idle, pipeline', QUIET, idle('/echo/pipeline')),
  state('idle, for await', QUIET, idle('/echo/loop')),
  state('idle, write()', QUIET, idle('/echo/write')),
  state('idle, TLS', QUIET, idle('/echo/loop'), { transport: 'tls' }),
  state('idle, unix', QUIET, idle('/echo/loop'), { transport: 'unix' }),
  state('drained after an early answer', QUIET, async (connection) => {
    await connection.read().send(`POST /early HTTP/1.1\r\n${FIELDS}Content-Length: 60000\r\n\r\n`).waitFor('early')
    await trickle(connection)
  }, { inProgress: 0 }),
  state('lingering before a close', QUIET, async (connection) => {
    await connection.read().send(open('/last')).waitFor('last')
    await trickle(connection)
  }, { inProgress: 0 }),
  state('queued behind a stuck exchange', ONE_DIRECTION, queue(whole('/download/generator'))),
  state('queued behind a stuck ordinary response', ONE_DIRECTION, queue(whole('/ordinary/download', 'GET'))),
  state('one exchange behind a slow ordinary response', QUIET, (connection) => connection.read().send(whole('/ordinary/held', 'GET') + open('/echo/loop') + CHUNK), { releasesHandlers: false }),
  state('queued behind a slow ordinary response', ONE_DIRECTION, queue(whole('/ordinary/held', 'GET')), { releasesHandlers: false, connectionTimeout: IDLE_TIMEOUT }),
  state('queued behind a slow ordinary response, silent', ONE_DIRECTION, queue(whole('/ordinary/held', 'GET')), { releasesHandlers: false, connectionTimeout: IDLE_TIMEOUT, ending: 'stay' }),
  state('queued behind a hook, TLS', ONE_DIRECTION, queue(whole('/hook')), { transport: 'tls' }),
  state('kept after an exchange', QUIET, completeExchange, { inProgress: 0 }),
  state('kept after an exchange, TLS', QUIET, completeExchange, { inProgress: 0, transport: 'tls' }),
  state('the rest of the next request is missing', QUIET, async (connection) => {
    await completeExchange(connection)
    connection.send('POST /short HTTP/1.1\r\nHost: a\r\nX-Long: ' + 'x'.repeat(4000))
  }, { inProgress: 0 }),
  state('CONNECT tunnel, idle', 2 * QUIET, tunnel(false), { target: 'silent' }),
  state('CONNECT tunnel, one way stuck', 2 * ONE_DIRECTION, tunnel(true), { target: 'stuck' }),
  state('CONNECT tunnel, both ways stuck', 2 * BOTH_DIRECTIONS, tunnel(true), { target: 'echo' }),
  state('CONNECT tunnel, FIN and RST from its target', 2 * QUIET, keepSending, { target: 'fin-rst', inProgress: 0, times: 8 }),
  state('101 tunnel, idle', QUIET, attach),
  state('101 tunnel, stuck', BOTH_DIRECTIONS, attachStuck),
  state('detached', QUIET, (connection) => connection.read().send(whole('/detach')).waitFor('200'), { inProgress: 0 }),
  state('chunks of one byte', QUIET, tinyChunks),
  state('endless chunk extension', QUIET, endlessExtension, { inProgress: 0 }),
  state('endless trailers', QUIET, endlessTrailers, { inProgress: 0 }),
  state('socket.end() by a handler that is not yet due', QUIET, (connection) => connection.read().send(whole('/ordinary/held', 'GET') + whole('/end-socket')), { hasPlain: false }),
  state('Node\'s request and response, idle', QUIET, idle('/echo/loop'), { routesLate: true }),
  state('Node\'s request and response, both stuck', BOTH_DIRECTIONS, fillBoth('/echo/pipeline'), { routesLate: true }),
  streams('HTTP/2 streams, open', QUIET, '/echo/loop', true),
  streams('HTTP/2 streams, stuck', BOTH_DIRECTIONS, '/echo/pipeline', false)
]
