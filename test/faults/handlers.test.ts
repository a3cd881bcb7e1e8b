// Handlers that break every rule, an app that closes during faults, and no leak after all of them.

import { once } from 'node:events'
import { setImmediate as immediate } from 'node:timers/promises'
import t from 'tap'
import { collectGarbage } from '../support/garbage.ts'
import { TRANSPORTS, type Wire, chunk } from '../support/wire.ts'
import { CHUNKED, CHUNKED_BODY, FAULTS, type Fault, HANDLERS, type Handler, REQUESTS, each, inject, newId, untilEnded, post, routes, start } from './support.ts'

// Handlers that break every rule

/** Each ignores what the client does. */
const RULE_BREAKERS: Record<string, Handler> = {
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
  rejectBetweenPieces: async (request, { duplex }) => { for await (const chunk of duplex) if (!duplex.write(chunk) || duplex.bytesRead > 0) throw new Error('rejected') },
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
  writeNonsense: async (request, { duplex }) => { duplex.write('a'); duplex.write({} as never) },
  writeTooMuch: (request, reply) => { reply.header('content-length', 1).duplex.end('aa') },
  writeTooLittle: (request, reply) => { reply.header('content-length', 3).duplex.end('aa') },
  writeTooMuchLater: async (request, reply) => { reply.header('content-length', 1).duplex.write('a'); await immediate(); reply.duplex.end('a') },
  endTwice: (request, { duplex }) => { duplex.end('a'); duplex.end('b') },
  endInData: (request, { duplex }) => { duplex.once('data', () => duplex.end('a')) },
  readOneAndLeave: async (request, { duplex }) => { for await (const chunk of duplex) if (duplex.end(chunk).writableEnded) break },
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
      for (const [name, handler] of Object.entries(RULE_BREAKERS)) app.post(`/${name}`, { duplex: true }, handler)
    })
    const all: { name: string, fault: Fault | 'none', id: string }[] = []
    for (const name of Object.keys(RULE_BREAKERS)) {
      for (const fault of [...FAULTS, 'none'] as const) all.push({ name, fault, id: newId() })
    }
    await each(all, async ({ name, fault, id }) => {
      const wire = await connect()
      wire.send(post(name, id, CHUNKED) + (fault === 'none' ? CHUNKED_BODY : chunk('some')))
      await immediate()
      if (fault !== 'none') inject(fault, wire, transport)
      await untilEnded(wire, connect)
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

interface Situation { wire: Wire, release?: () => void }

/** The response is complete; the request need not be. */
async function answered (connect: () => Promise<Wire>, request: string): Promise<Situation> {
  const wire = await connect()
  await wire.request(request)
  return { wire }
}

const SITUATIONS: Record<string, (connect: () => Promise<Wire>, held: Promise<() => void>) => Promise<Situation>> = {
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
          }, { fastify: { forceCloseConnections }, plugin: { closeGrace: 20 } })
          const situations: Situation[] = []
          for (const [name, set] of Object.entries(SITUATIONS)) {
            // Without force Node itself waits for the rest of a head.
            if (name === 'within the head' && forceCloseConnections !== true) continue
            situations.push(await set(connect, held))
          }
          const injectAll = (): void => {
            if (fault !== 'none') for (const { wire } of situations) inject(fault, wire, transport)
          }
          if (!late) injectAll()
          const closed = app.close()
          if (late) injectAll()
          for (const { release } of situations) release?.()
          await closed
          t.strictSame(await ledger.balance(), [], `${forceCloseConnections} ${fault} ${late}`)
          for (const { wire } of situations) wire.socket.destroy()
        }
      }
    }
    for (let i = 0; i < 10; i++) await immediate()
    const after = openResources()
    t.ok(after <= before, `nothing is left open: ${after}, before ${before}`)
  })
}

// No leaks

const ROUND = 300 // exchanges

t.test('memory is flat', async (t) => {
  let seed = 1
  const pick = <T> (items: readonly T[]): T => {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff
    return items[(seed >> 8) % items.length]
  }
  const handlers = { ...HANDLERS, ...RULE_BREAKERS }
  const { ledger, connect } = await start(t, 'tcp', (app) => {
    for (const [name, handler] of Object.entries(handlers)) app.post(`/${name}`, { duplex: true }, handler)
  }, { plugin: { idleTimeout: 50, drainTimeout: 50 } })
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
