// Backpressure: what one side sends and the other does not read is not buffered. Measured, in bytes of memory.

import { EventEmitter, once } from 'node:events'
import { Readable, type Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import t from 'tap'
import { READ_SIZE } from '../../lib/relay/read-buffers.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { collectGarbage } from '../support/garbage.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { GET, OPEN, TRANSPORTS, chunked, resolvers, serve, untilStuck } from '../support/wire.ts'

const MIB = 1024 ** 2
const TOTAL = 1024 * MIB
const MAX_GROWTH = 10 * MIB
const HIGH_WATER_MARK = 16 * 1024
const PIECE = Buffer.alloc(MIB, 'x')
const CHUNK = Buffer.concat([Buffer.from(MIB.toString(16) + '\r\n'), PIECE, Buffer.from('\r\n')])

/** Bytes in use by this process, server and client together, without garbage. */
function memory (): number {
  collectGarbage()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

interface Flow { sent: number }

/** Writes 1 GiB, as fast as the other side takes it. */
async function flood (stream: Writable, chunk: Buffer, flow: Flow): Promise<void> {
  while (flow.sent < TOTAL) {
    flow.sent += MIB
    if (!stream.write(chunk)) await new Promise<void>((resolve) => { stream.once('drain', resolve) })
  }
}

for (const transport of TRANSPORTS) {
  t.test(`a client that does not read stops the handler, over ${transport}`, async (t) => {
    const flow: Flow = { sent: 0 }
    const { connect } = await serve(t, transport, (app) => {
      app.get('/first', { duplex: true }, (request, reply) => reply.duplex.end())
      app.get('/', { duplex: true }, async (request, reply) => {
        await flood(reply.duplex, PIECE, flow)
        reply.duplex.end()
      })
    })
    const wire = await connect()
    await wire.request(GET('/first')) // the memory for all reads is allocated
    const before = memory()
    wire.socket.pause()
    wire.send(GET('/'))
    await untilStuck(() => flow.sent)
    t.ok(flow.sent > 0 && flow.sent < TOTAL / 8, `stuck after ${flow.sent / MIB} MiB`)
    const growth = memory() - before
    t.ok(growth < MAX_GROWTH, `grown by ${growth} bytes`)
    if (transport !== 'tcp') return

    wire.socket.resume()
    await wire.head()
    let received = 0
    while (received < TOTAL) received += (await wire.content()).length
    t.equal(received, TOTAL)
    t.equal(await wire.body(), '')
  })

  for (const platform of new Set([process.platform, 'win32'])) {
    t.test(`a handler that does not read stops the client, over ${transport}, as on ${platform}`, async (t) => {
      t.intercept(process, 'platform', { value: platform })
      const flow: Flow = { sent: 0 }
      const opened = new EventEmitter()
      const { connect } = await serve(t, transport, (app) => {
        app.post('/', { duplex: { highWaterMark: HIGH_WATER_MARK } }, (request, reply) => {
          reply.duplex.once('readable', () => {}) // reads once, then no more
          opened.emit('duplex', reply.duplex)
        })
      })
      const wire = await connect()
      const before = memory()
      wire.send(OPEN('/'))
      const [duplex] = await once(opened, 'duplex')
      const sent = flood(wire.socket, CHUNK, flow).then(() => wire.send('0\r\n\r\n'))
      await untilStuck(() => flow.sent)
      t.ok(flow.sent > 0 && flow.sent < TOTAL / 8, `stuck after ${flow.sent / MIB} MiB`)
      const growth = memory() - before
      t.ok(growth < MAX_GROWTH, `grown by ${growth} bytes`)
      // Where the socket's own buffers are used, what one TLS read decrypts to may be split between the two.
      const held = duplex.readableLength + duplex.socket.readableLength
      t.ok(held <= HIGH_WATER_MARK + READ_SIZE, `one highWaterMark and one read at the most: ${held} bytes`)
      if (transport !== 'tcp') return

      let received = 0
      duplex.on('data', (chunk: Buffer) => { received += chunk.length })
      duplex.on('end', () => duplex.end(String(received)))
      await sent
      t.equal((await wire.response()).body, String(TOTAL))
    })
  }
}

t.test('many small writes within one turn', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, (_request, reply) => {
      for (let i = 0; i < 200_000; i++) reply.duplex.write('x')
      reply.duplex.end()
    })
  })
  t.equal((await (await connect()).request(chunked('/'))).body, 'x'.repeat(200_000))
})

for (const transport of TRANSPORTS) {
  t.test(`callbacks of messages that the client does not take, over ${transport}`, async (t) => {
    const opened = resolvers<HttpDuplex>()
    const { connect } = await serve(t, transport, (app) => {
      app.post('/', { duplex: true }, async (_request, { duplex }) => {
        duplex.flushHeaders()
        opened.resolve(duplex)
        await once(duplex, 'close')
      })
    })
    const wire = await connect()
    wire.send(OPEN('/'))
    const duplex = await opened.promise
    await wire.head()
    wire.socket.pause()
    const called: number[] = []
    let count = 0
    const message = 'x'.repeat(10_000)
    while (duplex.writableLength === 0) {
      const index = count++
      duplex.write(message, () => { called.push(index) })
      for (let turns = 0; called.length < count && turns < 10; turns++) await immediate()
    }
    t.ok(called.length < count, 'the kernel has not accepted all of them')
    for (let i = 0; i < 3; i++) {
      const index = count++
      duplex.write(message, () => { called.push(index) })
    }
    wire.socket.resume()
    while (called.length < count) await immediate()
    t.strictSame(called, Array.from({ length: count }, (_, i) => i), 'in order')
    t.equal(duplex.bytesWritten, count * message.length)
    duplex.end()
    wire.send('0\r\n\r\n')
    t.equal((await wire.body()).length, count * message.length)
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`what a response to HEAD cannot hold is dropped, and other code runs meanwhile: ${name}`, async (t) => {
    const MANY = 100_000
    const state = { isStopped: false, count: 0 }
    async function * endless (): AsyncGenerator<Buffer> {
      for (state.count = 0; !state.isStopped && state.count < MANY; state.count++) yield Buffer.alloc(READ_SIZE)
    }
    const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.get('/pipeline', { ...routeOptions, duplex: true }, async (_request, reply) => {
        await pipeline(Readable.from(endless()), reply.duplex)
      })
      app.get('/loop', { ...routeOptions, duplex: true }, async (_request, reply) => {
        for await (const content of endless()) if (!reply.duplex.write(content)) await once(reply.duplex, 'drain')
        reply.duplex.end()
      })
    })
    for (const path of ['/pipeline', '/loop']) {
      state.isStopped = false
      const completed = logged('request completed')
      const asked = await ask(path, {}, 'HEAD')
      asked.end()
      t.equal(await asked.status(), 200)
      state.isStopped = true
      await completed
      t.ok(state.count < MANY, path)
    }
  })
}
