// Faults on live connections: clients that reset, leave, end their side, stall or send garbage at every place of a request
// and of its response, and slow ones. Whatever happens, the ledger must balance (see support/ledger.ts), nothing may be left
// behind, and the next client must be served.

import { once } from 'node:events'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { ChunkedReader } from '../../lib/transfer/chunked-reader.ts'
import { feed, whole } from '../support/feed.ts'
import { TRANSPORTS, type Transport, chunk, untilStuck } from '../support/wire.ts'
import { CHUNKED, CHUNKED_BODY, FAULTS, type Fault, GARBAGE, HANDLERS, type Handler, NO_IDLE_TIMEOUT, REQUESTS, closed, doLostAnswersFinish, each, fallSilent, inject, newId, untilEnded, plain, post, routes, start } from './support.ts'

const MOMENTS = ['at once', 'once all is read'] as const
type Moment = typeof MOMENTS[number]

interface Cut {
  fault: Fault
  bytes: string
  /** How much of them is sent before the fault. */
  at: number
  /** The requests in the bytes, and how each of them must end. */
  ends: [id: string, end: RegExp][]
  /** The request that falls silent. */
  silent: string | undefined
}

function cuts (transport: Transport, moment: Moment): Cut[] {
  const all: Cut[] = []
  const widest = { tcp: moment === 'at once' ? 1 : 5, tls: 13, unix: 13 }[transport]
  for (const [name, fields, body] of REQUESTS) {
    for (const url of Object.keys(HANDLERS)) {
      const stride = url === 'both' && name !== 'pipelined' ? widest : widest * (url === 'echo' ? 3 : 8)
      for (const fault of FAULTS) {
        // A handler that neither reads nor writes notices a client that has gone in some kernels only.
        if (url === 'mute' && isGone(fault)) continue
        let at = url === 'both' && moment === 'at once' ? 1 : NaN // within the head no handler has a part
        let size
        do {
          const ids = name === 'pipelined' ? [newId(), newId()] : [newId()]
          const bytes = ids.map((id) => post(url, id, fields) + body).join('')
          size = bytes.length
          const single = size / ids.length
          const headSize = single - body.length
          if (Number.isNaN(at)) at = headSize
          const ends = ids.map((id, i): Cut['ends'][0] => {
            const sent = at - i * single
            // A handler that never ends its exchange keeps the second request from being read.
            const isRouted = sent >= headSize && !(i === 1 && url === 'mute')
            return [id, isRouted ? endOf(transport, moment, fault, url, body, Math.min(sent - headSize, body.length)) : NEVER_ROUTED]
          })
          const silent = ends.find(([, end]) => end === IDLE || end === ANSWERED_IDLE)?.[0]
          // What stalls within a head is ended by Node's headersTimeout.
          const isWithinHead = at % single < headSize && at < size
          if (fault !== 'stall' || !isWithinHead) all.push({ fault, bytes, at, ends, silent })
          at += Math.min(stride, Math.max(1, size - at))
        } while (at <= size)
      }
    }
  }
  return all
}

const isGone = (fault: Fault): boolean => fault === 'reset' || fault === 'leave'

/** The ledger has no entry before the first hook. */
const NEVER_ROUTED = /^$/
const IDLE = /^errored FST_ERR_DUPLEX_IDLE$/
/** Before the response has begun, silence is answered. */
const ANSWERED_IDLE = /^completed 408$/
const LEFT = 'left'

let lostAnswersFinish: boolean
t.before(async () => { lostAnswersFinish = await doLostAnswersFinish() })

/** How a request must end of whose body `sent` bytes come before the fault. */
function endOf (transport: Transport, moment: Moment, fault: Fault, url: string, body: string, sent: number): RegExp {
  const end = endWhenRead(transport, fault, url, body, sent)
  if (end === 'errored FST_ERR_DUPLEX_IDLE') return IDLE
  if (end === 'completed 408') return ANSWERED_IDLE
  if (moment === 'once all is read') return exactly(end)
  // The fault may be seen before the first content has been echoed: then the response has not begun.
  if (!isGone(fault)) return exactly(end, (end === LEFT || end.startsWith('errored')) && url !== 'both' ? 'completed 400' : end)
  // A reset may be seen before anything that came with it, or before the answer is sent. Without either, the client
  // has merely ended its side.
  return exactly('', end, LEFT, endWhenRead(transport, 'end', url, body, sent))
}

/** How it ends when the server has read and done all that it can before the fault. */
function endWhenRead (transport: Transport, fault: Fault, url: string, body: string, sent: number): string {
  const isChunked = body === CHUNKED_BODY
  if (url === 'mute') return 'completed 408'
  if (url === 'refuse') return 'completed 403'
  if (url === 'download' || sent === body.length) return 'completed 200'
  if (fault === 'garbage' && !isChunked) return 'completed 200' // it was content
  // Over TCP a reset is told as such. Over the others all that comes is the end of the client's side.
  if (isGone(fault) && transport === 'tcp') return LEFT
  const content = body.indexOf('hello')
  // Content that comes in one read with garbage is taken back.
  const isEchoed = sent > content
  const hasBegun = url === 'both' || (url !== 'upload' && isEchoed)
  if (fault === 'stall') return hasBegun ? 'errored FST_ERR_DUPLEX_IDLE' : 'completed 408'
  if (hasBegun) {
    const code = isChunked ? chunkedError(body.slice(0, sent) + (fault === 'garbage' ? GARBAGE : '')) : TRUNCATED
    return code === TRUNCATED ? LEFT : `errored ${code}`
  }
  // To a Unix socket whose other end is closed nothing can be sent.
  return isGone(fault) && transport === 'unix' && !lostAnswersFinish ? LEFT : 'completed 400'
}

const TRUNCATED = 'FST_ERR_DUPLEX_TRUNCATED'

/** What the pure reader, which other tests compare with other parsers, finds wrong with a body that ends here. */
function chunkedError (body: string): string {
  return feed(new ChunkedReader({ maxTrailerSize: 1000, maxChunkExtensionSize: 1000 }), whole(body), true).code!
}

function exactly (...ends: string[]): RegExp {
  return new RegExp(`^(${ends.join('|')})$`)
}

for (const transport of TRANSPORTS) {
  for (const moment of MOMENTS) {
    t.test(`at every byte of a request, ${moment}, over ${transport}`, async (t) => {
      const { ledger, connect } = await start(t, transport, routes, { plugin: NO_IDLE_TIMEOUT })
      const all = cuts(transport, moment)
      await each(all, async ({ fault, bytes, at, ends: [[first, end]], silent }) => {
        const wire = await connect()
        wire.send(bytes.slice(0, at))
        if (moment === 'at once' || end === NEVER_ROUTED) {
          await immediate()
        } else {
          const socket = await ledger.socket(first)
          await untilStuck(() => socket.bytesRead + socket.bytesWritten)
        }
        inject(fault, wire, transport)
        if (silent !== undefined) await fallSilent(ledger, silent)
        await untilEnded(wire, connect)
      })
      t.strictSame(await ledger.balance(), [])
      const wrong: unknown[] = []
      for (const { fault, bytes, at, ends } of all) {
        for (const [id, expected] of ends) {
          const actual = ledger.end(id) ?? ''
          if (!expected.test(actual)) wrong.push([fault, bytes.slice(0, at), actual, expected])
        }
      }
      t.strictSame(wrong, [], `${all.length} places`)
      t.ok(all.length > 100)
    })
  }
}

// While the response is being written

/** Asynchronous: too late for the hand-off, so that Node reads and writes. */
const ROUTED_LATER = {
  name: 'later',
  storage: () => { const map = new Map(); return { get: (key: unknown) => map.get(key) ?? null, set: (key: unknown, value: unknown) => { map.set(key, value) } } },
  deriveConstraint: ((request: unknown, context: unknown, done: (error: null, value: string) => void) => { setImmediate(done, null, 'yes') }) as () => string,
  validate: () => true
}

const WRITES = 4

const RESPONSES: [name: string, version: string, set: (reply: FastifyReply) => unknown][] = [
  ['chunked', '1.1', () => {}],
  ['of a length', '1.1', (reply) => reply.header('content-length', WRITES)],
  ['until the connection ends', '1.0', () => {}]
]

for (const transport of TRANSPORTS) {
  t.test(`after every write of a response, over ${transport}`, async (t) => {
    const goOn = new Map<string, () => void>()
    let callbacks = 0
    const { ledger, connect } = await start(t, transport, (app) => {
      for (const [i, [,, set]] of RESPONSES.entries()) {
        for (const heedsAbort of [true, false]) {
          app.post(`/${i}-${heedsAbort}`, { duplex: true }, async (request, reply) => {
            const { duplex } = reply
            set(reply)
            duplex.flushHeaders()
            duplex.resume()
            for (let chunk = 0; chunk < WRITES; chunk++) {
              await new Promise<void>((resolve) => { goOn.set(request.id, resolve) })
              if (heedsAbort && duplex.destroyed) return
              duplex.write('x', () => { callbacks++ })
            }
            duplex.end()
          })
        }
      }
    }, { plugin: NO_IDLE_TIMEOUT })
    const all: { i: number, heedsAbort: boolean, fault: Fault, writes: number, id: string }[] = []
    for (const i of RESPONSES.keys()) {
      for (const heedsAbort of [true, false]) {
        for (const fault of FAULTS) {
          for (let writes = 0; writes <= WRITES; writes++) all.push({ i, heedsAbort, fault, writes, id: newId() })
        }
      }
    }
    await each(all, async ({ i, heedsAbort, fault, writes, id }) => {
      const wire = await connect()
      wire.send(post(`${i}-${heedsAbort}`, id, 'Content-Length: 1\r\n').replace('HTTP/1.1', `HTTP/${RESPONSES[i][1]}`) + 'a')
      await wire.head()
      for (let chunk = 0; chunk < writes; chunk++) {
        goOn.get(id)!()
        await wire.content()
      }
      inject(fault, wire, transport)
      if (fault === 'stall' && writes < WRITES) await fallSilent(ledger, id)
      // The handler continues, whether or not it could know that the client has left.
      for (let turns = 0; turns < WRITES * 4; turns++) {
        await immediate()
        goOn.get(id)!()
      }
      await untilEnded(wire, connect)
    })
    t.strictSame(await ledger.balance(), [])
    // Over TLS a last write and the end may be taken before the reset that answers the write is seen.
    const takesLast = transport === 'tls'
    const wrong: unknown[] = []
    for (const one of all) {
      const { fault, writes, id } = one
      const gone = isGone(fault)
      const expected = writes === WRITES || !(gone || fault === 'stall') ? /^completed 200$/ : !gone ? IDLE : takesLast && writes === WRITES - 1 ? /^completed 200$|^left$/ : /^left$/
      if (!expected.test(ledger.end(id)!)) wrong.push([one, ledger.end(id)])
    }
    t.strictSame(wrong, [], `${all.length} places`)
    t.ok(callbacks >= all.length, 'and every callback is called')
  })

  t.test(`while the response is stuck, over ${transport}`, { skip: process.platform === 'win32' && 'nothing gets stuck: Windows takes a single write of any size at once' }, async (t) => {
    const chunk = Buffer.alloc(1024 * 1024, 'x')
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
          duplex.write(chunk, () => { called++ })
        }
        duplex.end()
        await untilStuck(request)
      })
      app.post('/answer', { duplex: true }, (request, reply) => {
        reply.send(Buffer.alloc(16 * chunk.length))
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
      const expected = fault !== 'reset' && fault !== 'leave' ? /IDLE$/ : url === 'answer' && lostAnswersFinish ? /^completed 200$/ : /^left$/
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
    }, { plugin: NO_IDLE_TIMEOUT })
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
      await untilEnded(wire, connect)
    })
    t.strictSame(await ledger.balance(), [])
    const wrong: unknown[] = []
    for (const one of all) {
      const { stage, fault, open, id } = one
      const expected = stage === 'onResponse' || (!open && (fault === 'end' || fault === 'garbage'))
        ? /^completed/
        : fault === 'stall'
          ? stage === 'onRequest' || stage === 'preParsing' || stage === 'onSend' ? /IDLE$/ : /^completed 408$/
          : fault === 'reset' && transport === 'tcp' ? /^left$/ : /^completed|(TRUNCATED|CHUNK|left)$/
      if (!expected.test(ledger.end(id) ?? '')) wrong.push([one, ledger.end(id), expected])
    }
    t.strictSame(wrong, [], `${all.length} cases`)
  })
}

// Slow clients

t.test('a client that sends one byte at a time', async (t) => {
  const { ledger, connect } = await start(t, 'tcp', routes, { plugin: { idleTimeout: 10_000 } })
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

/** The server's end of a connection to a client that reads one byte per turn, until it stalls. */
class SlowSocket extends Duplex {
  taken = 0
  stalled = false
  takesEnd = true
  private done = (): void => {}

  constructor () {
    super({ writableHighWaterMark: 1, decodeStrings: true })
  }

  override _read (): void {}

  override _write (chunk: Buffer, _encoding: string, done: () => void): void {
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
    take(chunk.length)
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

t.test('a client that reads one byte at a time, and one that stops reading', async (t) => {
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

t.test('a client that has ended its side and does not read the end of ours', async (t) => {
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
