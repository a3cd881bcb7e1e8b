// Faults on live connections: clients that reset, leave, end their side, stall or send garbage at every place of a request
// and of its response, and handlers that break every rule. Whatever happens, the books must balance (see support/ledger.ts),
// nothing may be left behind, and the next client must be served.

import { once } from 'node:events'
import type { NetConnectOpts, Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { collectGarbage } from '../support/garbage.ts'
import { Ledger } from '../support/ledger.ts'
import { TRANSPORTS, type Transport, type Wire, chunk, dial, serve } from '../support/wire.ts'

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

/** Told apart: a reset alone; a FIN, and a reset when anything is written; a FIN of a client that still listens. */
const FAULTS = ['reset', 'leave', 'end', 'garbage', 'stall'] as const
type Fault = typeof FAULTS[number]

/** No request line, and nothing that could stand where a request has framing. */
const GARBAGE = '\0\xff\x01'.repeat(10)

function inject (fault: Fault, { socket }: Wire, transport: Transport): void {
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
const newId = (): string => String(ids++)

interface Started { app: FastifyInstance, ledger: Ledger, connect: () => Promise<Wire> }

/** An app that keeps books, and soon ends what stalls. */
async function start (t: Test, transport: Transport, setup: (app: FastifyInstance) => unknown, pluginOptions: object = {}, options: object = {}): Promise<Started> {
  const ledger = new Ledger()
  const { app } = await serve(t, transport, (app) => {
    ledger.keep(t, app)
    app.get('/plain', async () => 'plain')
    return setup(app)
  }, {
    ...ledger.options,
    keepAliveTimeout: 50,
    ...options
  }, { idleTimeout: 100, drainTimeout: 100, ...pluginOptions })
  // Where Node has it: a second more than the keepAliveTimeout.
  Object.assign(app.server, { keepAliveTimeoutBuffer: 0 })
  const address = app.server.address()
  const to = (typeof address === 'string' ? { path: address } : { port: address!.port, host: '127.0.0.1' }) as NetConnectOpts
  return { app, ledger, connect: () => dial(transport, to) }
}

/** What Node tells of a connection without a byte for as long as the idleTimeout, whatever the load of the machine. */
async function fallSilent (ledger: Ledger, id: string): Promise<void> {
  const socket = await ledger.socket(id)
  await immediate()
  socket.emit('timeout')
}

/** Ends nothing that is only slow. */
const PATIENT = { idleTimeout: 60_000 }

let faults = 0

/** The next client is served: after every third fault, for the time it takes. */
async function plain (connect: () => Promise<Wire>): Promise<void> {
  if (faults++ % 3 > 0) return
  const wire = await connect()
  const { body } = await wire.request(`GET /plain HTTP/1.1\r\nHost: a\r\nX-Id: ${newId()}\r\nConnection: close\r\n\r\n`)
  if (body !== 'plain') throw new Error('the next client is not served')
  await wire.ended
  wire.socket.destroy()
}

/** A fault has run its course: its connection ends, and the next client is served. */
async function over (wire: Wire, connect: () => Promise<Wire>): Promise<void> {
  await wire.ended
  wire.socket.destroy()
  await plain(connect)
}

/** As many at once as do not get in each other's way. */
async function each<T> (items: readonly T[], action: (item: T) => Promise<unknown>, atOnce = 100): Promise<void> {
  const left = items.values()
  await Promise.all(Array.from({ length: atOnce }, async () => {
    for (const item of left) await action(item)
  }))
}

function closed (socket: Socket): Promise<void> {
  return new Promise((resolve) => { socket.on('close', () => resolve()) })
}

// At every byte of a request

const HANDLERS: Record<string, Handler> = {
  /** The head goes out before anything is read. */
  both: async (request, { duplex }) => {
    duplex.flushHeaders()
    await pipeline(duplex, duplex)
  },
  echo: async (request, { duplex }) => pipeline(duplex, duplex),
  /** Answers when the request is complete. */
  upload: async (request, { duplex }) => {
    let size = 0
    for await (const piece of duplex) size += piece.length
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

function routes (app: FastifyInstance): void {
  for (const [name, handler] of Object.entries(HANDLERS)) app.post(`/${name}`, { duplex: true }, handler)
}

const CHUNKED = 'Transfer-Encoding: chunked\r\n'
const CHUNKED_BODY = '5;a;b="c\\"d" ; e = f\r\nhello\r\n6\r\n world\r\n0;last\r\nx-sum: 1\r\nx-more: 2\r\n\r\n'
const REQUESTS: [name: string, fields: string, body: string][] = [
  ['chunked', CHUNKED, CHUNKED_BODY],
  ['of a length', 'Content-Length: 11\r\n', 'hello world'],
  ['with Expect', 'Expect: 100-continue\r\nContent-Length: 11\r\n', 'hello world'],
  ['pipelined', CHUNKED, CHUNKED_BODY]
]

function post (url: string, id: string, fields: string): string {
  return `POST /${url} HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\n${fields}\r\n`
}

interface Cut {
  fault: Fault
  bytes: string
  /** How much of them is sent before the fault. */
  at: number
  /** The requests in the bytes, and how they may end. */
  ends: [id: string, end: RegExp | undefined][]
  /** The request that falls silent. */
  silent: string | undefined
}

function cuts (transport: Transport): Cut[] {
  const all: Cut[] = []
  const widest = { tcp: 1, tls: 13, unix: 13 }[transport]
  for (const [name, fields, body] of REQUESTS) {
    for (const url of Object.keys(HANDLERS)) {
      const stride = url === 'both' && name !== 'pipelined' ? widest : widest * (url === 'echo' ? 3 : 8)
      for (const fault of FAULTS) {
        // Whether it can see a client that has gone is a matter of luck.
        if (url === 'mute' && (fault === 'reset' || fault === 'leave')) continue
        let at = url === 'both' ? 1 : NaN // within the head no handler has a part
        let size
        do {
          const ids = name === 'pipelined' ? [newId(), newId()] : [newId()]
          const bytes = ids.map((id) => post(url, id, fields) + body).join('')
          size = bytes.length
          const own = size / ids.length
          if (Number.isNaN(at)) at = own - body.length
          const ends = ids.map((id, i) => [id, expectedEnd(fields, url, fault, at - i * own, own - body.length, own, i === 1)] as Cut['ends'][0])
          const silent = ends.find(([, end]) => end?.source === 'IDLE$')?.[0]
          // What stalls within a head is ended by Node's headersTimeout.
          const isWithinHead = at % own < own - body.length && at < size
          if (fault !== 'stall' || !isWithinHead) all.push({ fault, bytes, at, ends, silent })
          at += Math.min(stride, Math.max(1, size - at))
        } while (at <= size)
      }
    }
  }
  return all
}

function expectedEnd (fields: string, url: string, fault: Fault, at: number, headSize: number, size: number, second: boolean): RegExp | undefined {
  const gone = fault === 'reset' || fault === 'leave'
  if (at < headSize || (second && url === 'mute')) return undefined
  // What came before a reset may be lost with it.
  if (gone && second) return /^$|^completed|ABORTED$|TRUNCATED$/
  if (gone && url === 'refuse') return /^$|^completed 403$|ABORTED$/
  if (gone && (url === 'download' || at >= size)) return /^$|^completed 200$|ABORTED$/
  if (gone) return url === 'both' ? /^$|(ABORTED|TRUNCATED)$/ : /^$|^completed 400$|(ABORTED|TRUNCATED)$/
  if (url === 'mute') return /IDLE$/
  if (url === 'refuse') return /^completed 403$/
  if (url === 'download' || at >= size) return /^completed 200$/
  if (fault === 'stall') return /IDLE$/
  if (fault === 'garbage' && !fields.startsWith(CHUNKED)) return /^completed 200$/ // it was content
  const code = fault === 'end' ? '(TRUNCATED)$' : '(CHUNK|TRAILER|TRUNCATED)$'
  return new RegExp(url === 'both' ? code : `${code}|^completed 400$`)
}

for (const transport of TRANSPORTS) {
  t.test(`at every byte of a request, over ${transport}`, async (t) => {
    const { ledger, connect } = await start(t, transport, routes, PATIENT)
    const all = cuts(transport)
    await each(all, async ({ fault, bytes, at, silent }) => {
      const wire = await connect()
      wire.send(bytes.slice(0, at))
      await immediate()
      inject(fault, wire, transport)
      if (silent !== undefined) await fallSilent(ledger, silent)
      await over(wire, connect)
    })
    t.strictSame(await ledger.balance(), [])
    const wrong: unknown[] = []
    for (const { fault, bytes, at, ends } of all) {
      for (const [id, expected] of ends) {
        const actual = ledger.end(id)
        if (expected === undefined ? actual !== undefined : !expected.test(actual ?? '')) wrong.push([fault, bytes.slice(0, at), actual, expected])
      }
    }
    t.strictSame(wrong, [], `${all.length} places`)
  })
}

// While the response is being written

/** Asynchronous: too late for the hand-off, so that Node reads and writes. */
const ROUTED_LATER = {
  name: 'later',
  storage: () => { const map = new Map(); return { get: (key: unknown) => map.get(key) ?? null, set: (key: unknown, value: unknown) => { map.set(key, value) } } },
  deriveConstraint: ((request: unknown, context: unknown, done: (error: null, value: string) => void) => { setImmediate(done, null, 'yes') }) as () => string,
  validate: () => true
}

const PIECES = 4

const RESPONSES: [name: string, version: string, set: (reply: FastifyReply) => unknown][] = [
  ['chunked', '1.1', () => {}],
  ['of a length', '1.1', (reply) => reply.header('content-length', PIECES)],
  ['until the connection ends', '1.0', () => {}]
]

for (const transport of TRANSPORTS) {
  t.test(`after every piece of a response, over ${transport}`, async (t) => {
    const goOn = new Map<string, () => void>()
    let callbacks = 0
    const { ledger, connect } = await start(t, transport, (app) => {
      for (const [i, [,, set]] of RESPONSES.entries()) {
        for (const heedful of [true, false]) {
          app.post(`/${i}-${heedful}`, { duplex: true }, async (request, reply) => {
            const { duplex } = reply
            set(reply)
            duplex.flushHeaders()
            duplex.resume()
            for (let piece = 0; piece < PIECES; piece++) {
              await new Promise<void>((resolve) => { goOn.set(request.id, resolve) })
              if (heedful && request.signal.aborted) return
              duplex.write('x', () => { callbacks++ })
            }
            duplex.end()
          })
        }
      }
    }, PATIENT)
    const all: { i: number, heedful: boolean, fault: Fault, pieces: number, id: string }[] = []
    for (const i of RESPONSES.keys()) {
      for (const heedful of [true, false]) {
        for (const fault of FAULTS) {
          for (let pieces = 0; pieces <= PIECES; pieces++) all.push({ i, heedful, fault, pieces, id: newId() })
        }
      }
    }
    await each(all, async ({ i, heedful, fault, pieces, id }) => {
      const wire = await connect()
      wire.send(post(`${i}-${heedful}`, id, 'Content-Length: 1\r\n').replace('HTTP/1.1', `HTTP/${RESPONSES[i][1]}`) + 'a')
      await wire.head()
      for (let piece = 0; piece < pieces; piece++) {
        goOn.get(id)!()
        await wire.content()
      }
      inject(fault, wire, transport)
      if (fault === 'stall' && pieces < PIECES) await fallSilent(ledger, id)
      // The handler goes on, whether or not it could know that nobody listens.
      for (let turns = 0; turns < PIECES * 4; turns++) {
        await immediate()
        goOn.get(id)!()
      }
      await over(wire, connect)
    })
    t.strictSame(await ledger.balance(), [])
    const wrong: unknown[] = []
    for (const one of all) {
      const { fault, pieces, id } = one
      const gone = fault === 'reset' || fault === 'leave'
      const expected = gone ? /^completed 200$|ABORTED$/ : fault === 'stall' && pieces < PIECES ? /IDLE$/ : /^completed 200$/
      if (!expected.test(ledger.end(id)!)) wrong.push([one, ledger.end(id)])
    }
    t.strictSame(wrong, [], `${all.length} places`)
    t.ok(callbacks >= all.length, 'and every callback is called')
  })

  t.test(`while the response is stuck, over ${transport}`, { skip: process.platform === 'win32' && 'nothing gets stuck: Windows takes a single write of any size at once' }, async (t) => {
    const piece = Buffer.alloc(1024 * 1024, 'x')
    let written = 0
    let called = 0
    const stuck = new Map<string, () => void>()
    const connections = new Map<string, Socket>()
    const untilStuck = async (request: FastifyRequest): Promise<void> => {
      while (request.socket.writableLength === 0) await immediate()
      connections.set(request.id, request.socket)
      stuck.get(request.id)!()
    }
    const setup = (app: FastifyInstance): void => {
      app.post('/duplex', { duplex: true }, async (request, { duplex }) => {
        duplex.resume()
        // More than any kernel takes.
        for (let i = 0; i < 16; i++) {
          written++
          duplex.write(piece, () => { called++ })
        }
        duplex.end()
        await untilStuck(request)
      })
      app.post('/answer', { duplex: true }, (request, reply) => {
        reply.send(Buffer.alloc(16 * piece.length))
        return untilStuck(request)
      })
    }
    const mine = await start(t, transport, setup)
    const byNode = await start(t, transport, (app) => {
      app.addConstraintStrategy(ROUTED_LATER)
      setup(app)
    })
    const all: [url: string, fault: Fault, id: string][] = []
    for (const fault of FAULTS) {
      for (const url of ['duplex', 'answer']) all.push([url, fault, newId()])
    }
    // There the idleTimeout is left to Node, which has none.
    for (const fault of ['reset', 'leave'] as const) all.push(['by node', fault, newId()])
    await each(all, async ([url, fault, id]) => {
      const { connect, ledger } = url === 'by node' ? byNode : mine
      const wire = await connect()
      if (url !== 'duplex') ledger.byNode.add(id)
      wire.socket.pause()
      const isStuck = new Promise<void>((resolve) => { stuck.set(id, resolve) })
      wire.send(post(url === 'by node' ? 'duplex' : url, id, 'Content-Length: 1\r\n') + 'a')
      await isStuck
      inject(fault, wire, transport)
      await closed(connections.get(id)!)
      wire.socket.destroy()
    })
    t.strictSame(await mine.ledger.balance(), [])
    t.strictSame(await byNode.ledger.balance(), [])
    for (const [url, fault, id] of all) {
      const expected = fault !== 'reset' && fault !== 'leave' ? /IDLE$/ : url === 'answer' ? /^completed 200$|ABORTED$/ : /ABORTED$/
      t.match(mine.ledger.end(id) ?? byNode.ledger.end(id), expected, `${url} ${fault}`)
    }
    t.equal(called, written, 'every callback is called')
    await plain(mine.connect)
  })
}

// During the hooks

const STAGES = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'handler', 'onSend', 'onResponse'] as const

const AFTER_HOOKS: Record<string, Handler> = {
  both: HANDLERS.both,
  echo: HANDLERS.echo,
  generator: HANDLERS.generator,
  download: HANDLERS.download,
  refuse: HANDLERS.refuse,
  fail: async () => { throw new Error('failed') },
  sync: (request, { duplex }) => {
    duplex.write('some')
    duplex.end()
  },
  late: async (request, { duplex }) => {
    duplex.resume()
    await immediate()
    duplex.write('some')
    await immediate()
    duplex.end()
  }
}

for (const transport of ['tcp', 'tls'] as const) {
  t.test(`during every hook, over ${transport}`, async (t) => {
    const held = new Map<string, (held: { socket: Socket, release: () => void }) => void>()
    const hold = async (stage: string, request: FastifyRequest): Promise<void> => {
      if (request.headers['x-hold'] !== stage) return
      const { socket } = request.raw
      await new Promise<void>((resolve) => { held.get(request.id)!({ socket, release: resolve }) })
    }
    const { ledger, connect } = await start(t, transport, (app) => {
      for (const stage of STAGES) {
        if (stage !== 'handler') app.addHook(stage as 'onRequest', async (request) => hold(stage, request))
      }
      for (const [name, handler] of Object.entries(AFTER_HOOKS)) {
        app.post(`/${name}`, { duplex: true }, function (request, reply) {
          if (request.headers['x-hold'] !== 'handler') return handler(request, reply)
          return hold('handler', request).then(() => handler(request, reply))
        })
      }
    }, PATIENT)
    const all: { stage: string, name: string, fault: Fault, id: string, open: boolean }[] = []
    for (const stage of STAGES) {
      for (const name of Object.keys(AFTER_HOOKS)) {
        if (stage === 'onSend' && !(name === 'refuse' || name === 'fail')) continue
        for (const fault of FAULTS) {
          for (const open of [true, false]) all.push({ stage, name, fault, id: newId(), open })
        }
      }
    }
    await each(all, async ({ stage, name, fault, id, open }) => {
      const wire = await connect()
      const isHeld = new Promise<{ socket: Socket, release: () => void }>((resolve) => { held.set(id, resolve) })
      wire.send(post(name, id, `${CHUNKED}X-Hold: ${stage}\r\n`) + (open && stage !== 'onResponse' ? chunk('a') : CHUNKED_BODY))
      const { socket, release } = await isHeld
      const silent = fault === 'stall' && stage !== 'onResponse'
      const gone = silent || (fault === 'reset' && transport === 'tcp') ? closed(socket) : immediate()
      inject(fault, wire, transport)
      if (silent) socket.emit('timeout')
      await gone
      release()
      await over(wire, connect)
    })
    t.strictSame(await ledger.balance(), [])
    const wrong: unknown[] = []
    for (const one of all) {
      const { stage, fault, open, id } = one
      const expected = stage === 'onResponse' || (!open && (fault === 'end' || fault === 'garbage'))
        ? /^completed/
        : fault === 'stall'
          ? /IDLE$/
          : fault === 'reset' && transport === 'tcp' ? /ABORTED$/ : /^completed|(TRUNCATED|CHUNK|ABORTED)$/
      if (!expected.test(ledger.end(id) ?? '')) wrong.push([one, ledger.end(id), expected])
    }
    t.strictSame(wrong, [], `${all.length} cases`)
  })
}

// Handlers that break every rule

/** The names say what. Each is left to itself, whatever the client does. */
const RASCALS: Record<string, Handler> = {
  throwAtOnce: () => { throw new Error('thrown') },
  throwWhenOpened: (request, { duplex }) => { duplex.resume(); throw new Error('thrown') },
  throwAfterHead: (request, { duplex }) => { duplex.flushHeaders(); throw new Error('thrown') },
  throwAfterWrite: (request, { duplex }) => { duplex.write('a'); throw new Error('thrown') },
  throwAfterEnd: (request, { duplex }) => { duplex.end('a'); throw new Error('thrown') },
  rejectAtOnce: async () => { throw new Error('rejected') },
  rejectLater: async (request, { duplex }) => { duplex.resume(); await immediate(); throw new Error('rejected') },
  rejectAfterHead: async (request, { duplex }) => { duplex.flushHeaders(); await immediate(); throw new Error('rejected') },
  rejectAfterWrite: async (request, { duplex }) => { duplex.write('a'); await immediate(); throw new Error('rejected') },
  rejectAfterEnd: async (request, { duplex }) => { duplex.end('a'); await immediate(); throw new Error('rejected') },
  rejectWithNothing: async (request, { duplex }) => { duplex.flushHeaders(); await immediate(); await Promise.reject(undefined) }, // eslint-disable-line prefer-promise-reject-errors
  rejectBetweenPieces: async (request, { duplex }) => { for await (const piece of duplex) if (!duplex.write(piece) || duplex.bytesRead > 0) throw new Error('rejected') },
  generatorThatThrows: async function * () { yield 'a'; throw new Error('thrown') },
  generatorThatThrowsAtOnce: async function * () { throw new Error('thrown') },
  generatorThatWaitsForever: async function * () { yield 'a'; await new Promise(() => {}) },
  generatorOfNonsense: async function * () { yield 'a'; yield {} },
  destroyAtOnce: (request, { duplex }) => { duplex.destroy() },
  destroyWithError: (request, { duplex }) => { duplex.destroy(new Error('destroyed')) },
  destroyAfterHead: (request, { duplex }) => { duplex.flushHeaders(); duplex.destroy() },
  destroyAfterWrite: (request, { duplex }) => { duplex.write('a'); duplex.destroy() },
  destroyInWriteCallback: (request, { duplex }) => { duplex.write('a', () => duplex.destroy()) },
  destroyAfterEnd: (request, { duplex }) => { duplex.end('a').destroy() },
  destroyInEndCallback: (request, { duplex }) => { duplex.end('a', () => duplex.destroy()) },
  destroyDuringDrain: (request, { duplex }) => { duplex.end('a', () => setImmediate(() => duplex.destroy())) },
  destroyInClose: (request, { duplex }) => { duplex.on('close', () => duplex.destroy(new Error('again'))).end('a') },
  destroyInError: (request, { duplex }) => { duplex.on('error', () => duplex.destroy(new Error('again'))).flushHeaders(); duplex.destroy(new Error('once')) },
  destroyInData: (request, { duplex }) => { duplex.on('data', () => duplex.destroy()) },
  destroyInDataAfterHead: (request, { duplex }) => { duplex.on('data', () => duplex.destroy()).flushHeaders() },
  destroyInEnd: (request, { duplex }) => { duplex.on('end', () => duplex.destroy()).resume() },
  destroyTwice: async (request, { duplex }) => { duplex.flushHeaders(); duplex.destroy(new Error('once')); await immediate(); duplex.destroy(new Error('twice')) },
  destroyOnAbort: (request, { duplex }) => { request.signal.addEventListener('abort', () => duplex.destroy(new Error('aborted'))); duplex.resume().flushHeaders() },
  destroySocket: (request, { duplex }) => { duplex.flushHeaders(); duplex.socket.destroy() },
  destroySocketWithError: (request, { duplex }) => { duplex.resume(); duplex.socket.destroy(new Error('destroyed')) },
  endSocket: (request, { duplex }) => { duplex.resume().flushHeaders(); duplex.socket.end() },
  destroyRawReply: (request, reply) => { reply.duplex.resume(); reply.raw.destroy() },
  destroyRawRequest: (request, { duplex }) => { duplex.flushHeaders(); request.raw.destroy() },
  endRawReply: (request, reply) => { reply.raw.end('raw') },
  endRawReplyWhenOpened: (request, reply) => { reply.duplex.resume(); reply.raw.end('raw') },
  hijackAndForget: (request, reply) => { reply.hijack() },
  sendTwice: (request, reply) => { reply.send('a'); reply.send('b') },
  sendAfterWrite: (request, reply) => { reply.duplex.end('a'); reply.send('b') },
  sendAfterHead: async (request, reply) => { reply.duplex.flushHeaders(); await immediate(); return reply.send('b') },
  returnAfterWrite: async (request, { duplex }) => { duplex.end('a'); return 'b' },
  writeAfterSend: async (request, reply) => { reply.send('a'); reply.duplex.write('b') },
  writeAfterEnd: (request, { duplex }) => { duplex.end('a'); duplex.write('b') },
  writeAfterEndLater: async (request, { duplex }) => { duplex.end('a'); await immediate(); duplex.write('b') },
  writeWithoutEnd: (request, { duplex }) => { duplex.resume(); duplex.write('a') },
  writeNonsense: async (request, { duplex }) => { duplex.write('a'); duplex.write({}) },
  writeTooMuch: (request, reply) => { reply.header('content-length', 1).duplex.end('aa') },
  writeTooLittle: (request, reply) => { reply.header('content-length', 3).duplex.end('aa') },
  writeTooMuchLater: async (request, reply) => { reply.header('content-length', 1).duplex.write('a'); await immediate(); reply.duplex.end('a') },
  endTwice: (request, { duplex }) => { duplex.end('a'); duplex.end('b') },
  endInData: (request, { duplex }) => { duplex.once('data', () => duplex.end('a')) },
  readOneAndLeave: async (request, { duplex }) => { for await (const piece of duplex) if (duplex.end(piece).writableEnded) break },
  readOneAndForget: async (request, { duplex }) => { duplex.read(); await once(duplex, 'readable'); duplex.read(1) },
  pauseForever: (request, { duplex }) => { duplex.flushHeaders(); duplex.on('data', () => {}).pause() },
  unpipe: (request, { duplex }) => { duplex.pipe(duplex); duplex.once('data', () => duplex.unpipe()) },
  returnNothing: async () => {},
  returnNothingWhenOpened: async (request, { duplex }) => { duplex.resume() },
  neverReturn: () => new Promise(() => {}),
  trailersTooLate: async (request, { duplex }) => { duplex.end('a'); await immediate(); duplex.setTrailers({ a: 'b' }) },
  /** All that can be done after the client has left, and after an end of any kind. */
  goOnAfterClose: (request, { duplex }) => {
    duplex.resume().on('close', () => {
      for (const action of [() => duplex.write('a'), () => duplex.flushHeaders(), () => duplex.writeInformation(103), () => duplex.setTrailers({ a: 'b' }), () => duplex.end('a'), () => duplex.read(), () => duplex.resume(), () => duplex.pause()]) {
        try { action() } catch {}
      }
    })
    duplex.write('a')
    setImmediate(() => duplex.end())
  },
  goOnAfterAbort: (request, { duplex }) => {
    duplex.resume().write('a')
    request.signal.addEventListener('abort', () => duplex.end('still here'))
  }
}

for (const transport of ['tcp', 'tls'] as const) {
  t.test(`handlers that break every rule, over ${transport}`, async (t) => {
    const { ledger, connect } = await start(t, transport, (app) => {
      for (const [name, handler] of Object.entries(RASCALS)) app.post(`/${name}`, { duplex: true }, handler)
    })
    const all: { name: string, fault: Fault | 'none', id: string }[] = []
    for (const name of Object.keys(RASCALS)) {
      for (const fault of [...FAULTS, 'none'] as const) all.push({ name, fault, id: newId() })
    }
    await each(all, async ({ name, fault, id }) => {
      const wire = await connect()
      wire.send(post(name, id, CHUNKED) + (fault === 'none' ? CHUNKED_BODY : chunk('some')))
      await immediate()
      if (fault !== 'none') inject(fault, wire, transport)
      await over(wire, connect)
    })
    t.strictSame(await ledger.balance(), [])
    const without = all.filter(({ id }) => ledger.end(id) === undefined)
    t.strictSame(without, [], `${all.length} cases`)
  })
}

// While the app closes

/** How many of the kinds a server and its clients have. */
function openResources (): number {
  return process.getActiveResourcesInfo().filter((kind) => /^(TCP|TLS|Timeout)/.test(kind)).length
}

interface Scene { wire: Wire, release?: () => void }

/** The response is complete; the request need not be. */
async function answered (connect: () => Promise<Wire>, request: string): Promise<Scene> {
  const wire = await connect()
  await wire.request(request)
  return { wire }
}

const SCENES: Record<string, (connect: () => Promise<Wire>, held: Promise<() => void>) => Promise<Scene>> = {
  idle: (connect) => answered(connect, post('echo', newId(), CHUNKED) + CHUNKED_BODY),
  'within the head': async (connect) => ({ wire: (await connect()).send(post('echo', newId(), CHUNKED).slice(0, -5)) }),
  'during a hook': async (connect, held) => {
    const wire = await connect()
    wire.send(post('echo', newId(), `${CHUNKED}X-Hold: 1\r\n`) + chunk('a'))
    return { wire, release: await held }
  },
  'before the response head': async (connect) => ({ wire: (await connect()).send(post('upload', newId(), CHUNKED) + chunk('a')) }),
  'after it': async (connect) => {
    const wire = await connect()
    wire.send(post('both', newId(), CHUNKED) + chunk('a'))
    await wire.head()
    return { wire }
  },
  'while it is stuck': async (connect) => {
    const wire = await connect()
    wire.socket.pause()
    wire.send(post('big', newId(), 'Content-Length: 1\r\n') + 'a')
    return { wire }
  },
  'during the drain': (connect) => answered(connect, post('download', newId(), CHUNKED) + chunk('a')),
  'during the lingering read': (connect) => answered(connect, post('refuse', newId(), 'Content-Length: 1000000\r\n') + 'a'),
  'behind another request': async (connect) => {
    const wire = await connect()
    wire.send(`GET /slow HTTP/1.1\r\nHost: a\r\nX-Id: ${newId()}\r\n\r\n${post('both', newId(), CHUNKED)}${chunk('a')}`)
    return { wire }
  }
}

for (const transport of TRANSPORTS) {
  t.test(`while the app closes, over ${transport}`, async (t) => {
    const before = openResources()
    for (const forceCloseConnections of [true, 'idle']) {
      for (const fault of [...FAULTS, 'none'] as const) {
        for (const late of fault === 'none' ? [false] : [true, false]) {
          let onHeld!: (release: () => void) => void
          const held = new Promise<() => void>((resolve) => { onHeld = resolve })
          const { app, ledger, connect } = await start(t, transport, (app) => {
            app.addHook('preHandler', async (request) => {
              if (request.headers['x-hold']) await new Promise<void>((resolve) => { onHeld(resolve) })
            })
            routes(app)
            app.post('/big', { duplex: true }, (request, { duplex }) => { duplex.end(Buffer.alloc(16e6)) })
            app.get('/slow', async () => { for (let i = 0; i < 20; i++) await immediate() })
          }, { closeGrace: 20 }, { forceCloseConnections })
          const scenes: Scene[] = []
          for (const [name, set] of Object.entries(SCENES)) {
            // Without force Node itself waits for the rest of a head.
            if (name === 'within the head' && forceCloseConnections !== true) continue
            scenes.push(await set(connect, held))
          }
          const injectAll = (): void => {
            if (fault !== 'none') for (const { wire } of scenes) inject(fault, wire, transport)
          }
          if (!late) injectAll()
          const closed = app.close()
          if (late) injectAll()
          for (const { release } of scenes) release?.()
          await closed
          const wrong = await ledger.balance()
          if (wrong.length > 0) t.strictSame(wrong, [], `${forceCloseConnections} ${fault} ${late}`)
          for (const { wire } of scenes) wire.socket.destroy()
        }
      }
    }
    for (let i = 0; i < 10; i++) await immediate()
    const after = openResources()
    t.ok(after <= before, `nothing is left open: ${after}, before ${before}`)
  })
}

// Slow clients

t.test('a client that sends one byte at a time', async (t) => {
  const { ledger, connect } = await start(t, 'tcp', routes, { idleTimeout: 10_000 })
  const id = newId()
  const wire = await connect()
  const head = post('both', id, CHUNKED)
  for (const byte of head) {
    wire.send(byte)
    await immediate()
  }
  await wire.head()
  for (const byte of CHUNKED_BODY) {
    wire.send(byte)
    await immediate()
  }
  t.equal(await wire.body(), 'hello world')
  wire.socket.destroy()
  t.strictSame(await ledger.balance(), [])
  t.equal(ledger.end(id), 'completed 200')
})

/** The server's end of a connection to a client that takes one byte per turn, until it stalls. */
class SlowSocket extends Duplex {
  taken = 0
  stalled = false
  takesEnd = true
  private done = (): void => {}

  constructor () {
    super({ writableHighWaterMark: 1, decodeStrings: true })
  }

  override _read (): void {}

  override _write (piece: Buffer, _encoding: string, done: () => void): void {
    this.done = done
    const take = (left: number): void => {
      if (this.stalled) {
        this.emit('stalled')
      } else if (left === 0) {
        done()
      } else {
        this.taken++
        setImmediate(take, left - 1)
      }
    }
    take(piece.length)
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    // As a handle of Node does, without an error, for what it could not send.
    this.done()
    done(error)
  }

  override _final (done: () => void): void {
    if (this.takesEnd) done()
  }
}

t.test('a client that takes one byte at a time, and one that stops', async (t) => {
  const SIZE = 20_000
  let highest = 0
  let errors = 0
  const { app, ledger } = await start(t, 'tcp', (app) => {
    app.post('/', { duplex: { highWaterMark: 1000 } }, async (request, { duplex }) => {
      duplex.resume()
      for (let sent = 0; sent < SIZE; sent += 100) {
        const goesOn = duplex.write(Buffer.alloc(100), (error) => { if (error) errors++ })
        highest = Math.max(highest, duplex.writableLength + duplex.socket.writableLength)
        if (!goesOn) await once(duplex, 'drain')
      }
      duplex.end()
    })
  })
  const ids = [newId(), newId()]
  for (const [i, id] of ids.entries()) {
    const socket = new SlowSocket()
    app.server.emit('connection', socket)
    const gone = new Promise((resolve) => { socket.on('close', resolve) })
    socket.push(post('', id, 'Content-Length: 1\r\nConnection: close\r\n') + 'a')
    if (i === 0) {
      socket.push(null)
    } else {
      while (socket.taken < SIZE / 2) await immediate()
      socket.stalled = true
      await once(socket, 'stalled')
      socket.emit('timeout')
    }
    await gone
    if (i === 0) t.ok(socket.taken > SIZE)
    else t.ok(socket.taken < SIZE)
  }
  t.strictSame(await ledger.balance(), [])
  t.strictSame(ids.map((id) => ledger.end(id)), ['completed 200', 'errored FST_ERR_DUPLEX_IDLE'])
  t.ok(errors > 0 && errors <= 20, `what was not taken is told: ${errors}`)
  t.ok(highest < 2 * 1100, `no more than a highWaterMark is held in each of the two streams: ${highest}`)
})

t.test('a client that has ended its side, and does not take the end of ours', async (t) => {
  const { app, ledger } = await start(t, 'tcp', routes)
  const id = newId()
  const socket = new SlowSocket()
  socket.takesEnd = false
  app.server.emit('connection', socket)
  const gone = new Promise((resolve) => { socket.on('close', resolve) })
  socket.push(post('both', id, CHUNKED) + CHUNKED_BODY)
  socket.push(null)
  await gone
  t.strictSame(await ledger.balance(), [])
  t.equal(ledger.end(id), 'completed 200')
})

// And nothing is left behind

const ROUND = 300 // exchanges

t.test('memory is flat', async (t) => {
  let seed = 1
  const pick = <T> (items: readonly T[]): T => {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff
    return items[(seed >> 8) % items.length]
  }
  const handlers = { ...HANDLERS, ...RASCALS }
  const { ledger, connect } = await start(t, 'tcp', (app) => {
    for (const [name, handler] of Object.entries(handlers)) app.post(`/${name}`, { duplex: true }, handler)
  }, { idleTimeout: 50, drainTimeout: 50 })
  const round = async (): Promise<number> => {
    await each(Array.from({ length: ROUND }), async () => {
      const wire = await connect()
      const body = pick([CHUNKED_BODY, 'hello world'])
      wire.send(post(pick(Object.keys(handlers)), newId(), `Connection: close\r\n${pick(REQUESTS)[1]}`))
      wire.send(body.slice(0, body.length - pick([0, 0, 1, 5, 10, 30])))
      await immediate()
      inject(pick(FAULTS), wire, 'tcp')
      await wire.ended
      wire.socket.destroy()
    })
    t.strictSame(await ledger.balance(), [])
    ledger.clear()
    collectGarbage()
    await immediate()
    collectGarbage()
    return process.memoryUsage().heapUsed
  }
  const heap: number[] = []
  for (let i = 0; i < 6; i++) heap.push(await round())
  const growth = heap.at(-1)! - heap[2]
  // The stream of one exchange is 2 kB, and brings its socket, its request and its reply along.
  t.ok(growth < 3 * ROUND * 500, `grown by ${growth} bytes`)
})
