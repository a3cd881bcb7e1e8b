// The states in which a hostile client can hold an exchange or a connection, and how it comes there.

import { setTimeout as sleep } from 'node:timers/promises'
import { BOTH_DIRECTIONS, IDLE_TIMEOUT, ONE_DIRECTION, QUIET } from './bounds.ts'
import { Connection, type Hostile } from './connection.ts'
import type { Address, Transport } from './messages.ts'
import type { Random } from '../../support/random.ts'
import { Session } from './streams.ts'
import type { Target } from './targets.ts'

/** The clients leave; or stay, silent, until the server ends what is theirs; or the app closes while they are there. */
export const ENDINGS = ['leave', 'stay', 'close'] as const
export type Ending = typeof ENDINGS[number]

export interface State {
  name: string
  transport: Transport
  /** Where Node reads and writes, also with the plugin. */
  deferred: boolean
  /** Bytes of the server's memory for one client. */
  memory: number
  /** Requests of one client that are in progress when the state is reached: at least so many. */
  inProgress: number
  /** `maxExchanges` that one client takes at most. */
  slots: number
  /** Whether Fastify alone has something near. */
  hasPlain: boolean
  /** What the other side of a CONNECT tunnel does. */
  target: Target
  /** Whether the handlers and hooks that wait go on when the clients have left. */
  isLetGo: boolean
  /** The app's, where clients leave behind an ordinary response: milliseconds, 0 for none. */
  connectionTimeout: number
  /** How it ends in the first round. */
  ending: Ending
  /** So many times the usual number of clients. */
  times: number
  enter: (address: Address, random: Random) => Promise<Hostile>
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

function state (name: string, memory: number, enter: Enter, own: Partial<Omit<State, 'enter'>> = {}): State {
  const { transport = 'tcp' } = own
  return {
    name,
    memory,
    transport,
    deferred: false,
    inProgress: 1,
    slots: 1,
    hasPlain: true,
    target: 'silent',
    isLetGo: true,
    connectionTimeout: 0,
    ending: 'leave',
    times: 1,
    ...own,
    enter: async (address, random) => {
      const connection = await Connection.open(address, transport)
      await enter(connection, random)
      return connection
    }
  }
}

// The client's ways

const idle = (path: string): Enter => (connection) => connection.read().send(open(path) + CHUNK).until('hello')

const fill = (path: string): Enter => async (connection) => {
  await connection.read().send(open(path) + CHUNK).until('\r\n\r\n')
  await connection.fill()
}

/** Nothing is read: the response fills the client's socket, and the server's. */
const readNothing = (path: string, method = 'POST'): Enter => (connection) => { connection.send(whole(path, method)) }

const neither = (path: string): Enter => async (connection) => {
  connection.send(open(path))
  await connection.fill()
}

const queue = (first: string): Enter => async (connection, random) => {
  connection.send(first)
  const requests = Array.from({ length: 1000 + random.below(3000) }, () => random.chance(0.5) ? whole('/short') : open('/turn') + CHUNK + LAST_CHUNK)
  connection.send(requests.join(''))
}

async function between (connection: Connection): Promise<void> {
  await connection.read().send(open('/short') + CHUNK + LAST_CHUNK).until('ok 5')
}

/** Sends a byte now and then, within the timeouts. */
async function trickle (connection: Connection): Promise<void> {
  const timer = setInterval(() => connection.send('1\r\nx\r\n'), 100)
  connection.socket.on('close', () => clearInterval(timer))
}

/** Sends so many blocks, as fast as they are taken. */
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
  else await connection.until('\r\n\r\n') // a target may be gone before there is a tunnel
}

/** Talks on while the other side of the tunnel goes away. */
async function talkOn (connection: Connection): Promise<void> {
  connection.read().send(CONNECT)
  const timer = setInterval(() => connection.send('hello'), 1)
  await Promise.race([connection.ended, sleep(100)])
  clearInterval(timer)
}

async function attach (connection: Connection): Promise<void> {
  await connection.read().send(ATTACH + 'hello').until('hello')
}

async function attachStuck (connection: Connection): Promise<void> {
  connection.send(ATTACH)
  await connection.fill(Buffer.alloc(0x10000))
}

const session = (path: string, reads: boolean, streams: number) => async (address: Address): Promise<Hostile> => {
  const hostile = await Session.open(address)
  for (let i = 0; i < streams; i++) {
    const stream = hostile.request(path, reads)
    if (!reads) stream.write(Buffer.alloc(0x20000))
  }
  return hostile
}

/** Streams of one session. */
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
  state('handler has paused', ONE_DIRECTION, fill('/paused')),
  state('response stuck, generator', ONE_DIRECTION, readNothing('/download/generator')),
  state('response stuck, pipeline', ONE_DIRECTION, readNothing('/download/pipeline')),
  state('both directions stuck, pipeline', BOTH_DIRECTIONS, neither('/echo/pipeline')),
  state('both directions stuck, loop', BOTH_DIRECTIONS, neither('/echo/loop')),
  state('both directions stuck, TLS', BOTH_DIRECTIONS, neither('/echo/pipeline'), { transport: 'tls' }),
  state('both directions stuck, unix', BOTH_DIRECTIONS, neither('/echo/loop'), { transport: 'unix' }),
  state('idle, pipeline', QUIET, idle('/echo/pipeline')),
  state('idle, for await', QUIET, idle('/echo/loop')),
  state('idle, write()', QUIET, idle('/echo/write')),
  state('idle, TLS', QUIET, idle('/echo/loop'), { transport: 'tls' }),
  state('idle, unix', QUIET, idle('/echo/loop'), { transport: 'unix' }),
  state('drained after an early answer', QUIET, async (connection) => {
    await connection.read().send(`POST /early HTTP/1.1\r\n${FIELDS}Content-Length: 60000\r\n\r\n`).until('early')
    await trickle(connection)
  }, { inProgress: 0 }),
  state('lingering before a close', QUIET, async (connection) => {
    await connection.read().send(open('/last')).until('last')
    await trickle(connection)
  }, { inProgress: 0 }),
  state('queued behind a stuck exchange', ONE_DIRECTION, queue(whole('/download/generator'))),
  state('queued behind a stuck ordinary response', ONE_DIRECTION, queue(whole('/ordinary/download', 'GET'))),
  state('one exchange behind a slow ordinary response', QUIET, (connection) => connection.read().send(whole('/ordinary/held', 'GET') + open('/echo/loop') + CHUNK), { isLetGo: false }),
  state('queued behind a slow ordinary response', ONE_DIRECTION, queue(whole('/ordinary/held', 'GET')), { isLetGo: false, connectionTimeout: IDLE_TIMEOUT }),
  state('queued behind a slow ordinary response, silent', ONE_DIRECTION, queue(whole('/ordinary/held', 'GET')), { isLetGo: false, connectionTimeout: IDLE_TIMEOUT, ending: 'stay' }),
  state('queued behind a hook, TLS', ONE_DIRECTION, queue(whole('/hook')), { transport: 'tls' }),
  state('kept after an exchange', QUIET, between, { inProgress: 0 }),
  state('kept after an exchange, TLS', QUIET, between, { inProgress: 0, transport: 'tls' }),
  state('the rest of the next request is missing', QUIET, async (connection) => {
    await between(connection)
    connection.send('POST /short HTTP/1.1\r\nHost: a\r\nX-Long: ' + 'x'.repeat(4000))
  }, { inProgress: 0 }),
  state('CONNECT tunnel, idle', 2 * QUIET, tunnel(false), { target: 'silent' }),
  state('CONNECT tunnel, one way stuck', 2 * ONE_DIRECTION, tunnel(true), { target: 'stuck' }),
  state('CONNECT tunnel, both ways stuck', 2 * BOTH_DIRECTIONS, tunnel(true), { target: 'echo' }),
  state('CONNECT tunnel, FIN and RST from its target', 2 * QUIET, talkOn, { target: 'fin-rst', inProgress: 0, times: 8 }),
  state('101 tunnel, idle', QUIET, attach),
  state('101 tunnel, stuck', BOTH_DIRECTIONS, attachStuck),
  state('detached', QUIET, (connection) => connection.read().send(whole('/detach')).until('200'), { inProgress: 0 }),
  state('chunks of one byte', QUIET, tinyChunks),
  state('endless chunk extension', QUIET, endlessExtension, { inProgress: 0 }),
  state('endless trailers', QUIET, endlessTrailers, { inProgress: 0 }),
  state('socket.end() by a handler not in turn', QUIET, (connection) => connection.read().send(whole('/ordinary/held', 'GET') + whole('/end-socket')), { hasPlain: false }),
  state('Node reads and writes, idle', QUIET, idle('/echo/loop'), { deferred: true }),
  state('Node reads and writes, both stuck', BOTH_DIRECTIONS, neither('/echo/pipeline'), { deferred: true }),
  streams('HTTP/2 streams, open', QUIET, '/echo/loop', true),
  streams('HTTP/2 streams, stuck', BOTH_DIRECTIONS, '/echo/pipeline', false)
]
