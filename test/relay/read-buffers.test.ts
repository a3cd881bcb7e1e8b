// Read buffers, shared and private: what code outside may keep is never read into again, and their number is limited.

import { EventEmitter, once } from 'node:events'
import { type AddressInfo, Socket } from 'node:net'
import { PerformanceObserver, constants } from 'node:perf_hooks'
import { Duplex, Readable, Writable } from 'node:stream'
import { setImmediate as immediate } from 'node:timers/promises'
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { COLLECT_AFTER } from '../../lib/node/young-memory.ts'
import { ReadBuffers, MAX_SWITCHES, MAX_PRIVATE, type PrivateBuffer, READ_SIZE } from '../../lib/relay/read-buffers.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { collectYoungGarbage } from '../support/garbage.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { GET, OPEN, type Served, TRANSPORTS, type Wire, chunk, dial, hash, serve, untilStuck } from '../support/wire.ts'
import { END, FRAMINGS, IN_PLACE, MIB, type Opened, chunks, content, countRelayed, echo, handled, hashOf, memory, queued, relaysOver } from './support.ts'

for (const transport of TRANSPORTS) {
  // Code that observes content may keep it.
  const observers: Record<string, (duplex: HttpDuplex, keep: (chunk: unknown) => void) => void> = {
    'a listener beside the pipe': (duplex, keep) => { duplex.on('data', keep) },
    'a listener in its place': (duplex, keep) => {
      duplex.removeAllListeners('data')
      duplex.on('data', (chunk) => {
        keep(chunk)
        duplex.write(chunk)
      })
    },
    'a replaced emit': (duplex, keep) => tap(duplex, 'emit', (event, chunk) => { if (event === 'data') keep(chunk) }),
    'a replaced on': (duplex, keep) => {
      duplex.unpipe(duplex)
      tap(duplex, 'on', () => {})
      const { on } = duplex
      duplex.on = (event: string, listener: any) => on.call(duplex, event, event !== 'data' ? listener : (chunk: Buffer) => { keep(chunk); listener(chunk) })
      duplex.pipe(duplex)
    },
    'a replaced _write': (duplex, keep) => tap(duplex, '_write', keep),
    'a replaced push': (duplex, keep) => tap(duplex as Readable, 'push', keep),
    'a replaced write': (duplex, keep) => tap(duplex, 'write', keep),
    'a replaced write of the socket': ({ socket }, keep) => tap(socket, 'write', keep),
    'a replaced write of all sockets': (duplex, keep) => tap(Socket.prototype, 'write', keep),
    'a replaced _write of all sockets': (duplex, keep) => tap(Socket.prototype, '_write', keep),
    'a replaced _writev of all sockets': (duplex, keep) => tap(Socket.prototype, '_writev', (chunks) => chunks.forEach(({ chunk }: { chunk: Buffer }) => keep(chunk))),
    'a replaced _writeGeneric of all sockets': (duplex, keep) => tap(Socket.prototype, '_writeGeneric', (many, data) => {
      if (many) data.forEach(({ chunk }: { chunk: Buffer }) => keep(chunk))
      else keep(data)
    }),
    'a replaced writev of the handle': ({ socket }, keep) => tap((socket as any)._handle, 'writev', (_request, chunks) => chunks.forEach(keep)),
    'a bound writeBuffer of the handle': ({ socket }, keep) => {
      const handle = (socket as any)._handle
      const { writeBuffer } = handle
      handle.writeBuffer = ((_bound: unknown, request: unknown, buffer: Buffer) => {
        keep(buffer)
        return writeBuffer.call(handle, request, buffer)
      }).bind(null, null)
    },
    'a replaced pipe of all readables': (duplex, keep) => {
      duplex.unpipe(duplex)
      const { pipe } = Readable.prototype
      Readable.prototype.pipe = function (this: Readable, destination: any) {
        this.on('data', (chunk) => {
          keep(chunk)
          destination.write(chunk)
        })
        this.on('end', () => destination.end())
        this.resume()
        return destination
      } as typeof pipe
      duplex.pipe(duplex)
      Readable.prototype.pipe = pipe
    },
    'a listener that comes within the pipe, and stays': (duplex, keep) => {
      duplex.unpipe(duplex)
      let first: unknown = null
      duplex.once('newListener', () => {
        duplex.on('data', first = (chunk: Buffer) => {
          keep(chunk)
          duplex.write(chunk)
        })
      })
      duplex.pipe(duplex)
      for (const listener of duplex.listeners('data')) {
        if (listener !== first) duplex.removeListener('data', listener as () => void)
      }
    }
  }
  for (const [name, observe] of Object.entries(observers)) {
    t.test(`content seen by ${name} can be kept, over ${transport}`, async (t) => {
      const relayed = countRelayed(t)
      const { open } = await handled(t, transport)
      const { wire, duplex } = await open('/')
      duplex.pipe(duplex)
      const size = 3 * MIB
      wire.send(chunks(content(1, size)))
      await wire.head()
      t.equal(await hashOf(wire, size), hash(content(1, size)))
      if (relaysOver(transport)) t.ok(relayed() > 0, 'relayed')

      const { write, _write, _writev, _writeGeneric } = Socket.prototype as any
      t.teardown(() => { Object.assign(Socket.prototype, { write, _write, _writev, _writeGeneric }) })
      const kept: Buffer[] = []
      const copies: Buffer[] = []
      observe(duplex, (chunk) => {
        if (!Buffer.isBuffer(chunk)) return
        kept.push(chunk)
        copies.push(Buffer.from(chunk))
      })
      wire.send(chunks(content(2, size))).send(END)
      t.equal(await hashOf(wire, size), hash(content(2, size)), 'seen')
      if (name === 'a listener in its place') duplex.end()
      t.equal(await wire.body(), '')
      t.ok(kept.length > 0)
      t.ok(kept.every((chunk, i) => chunk.equals(copies[i])), 'it has not changed')
      t.equal(relayed(), 0, 'nothing is relayed any more')
    })
  }

  t.test('content that is kept is not overwritten by later reads of any connection', async (t) => {
    const { connect } = await serve(t, transport, (app) => {
      const keep = async (request: FastifyRequest, stream: Readable): Promise<string> => {
        const chunks: Buffer[] = []
        for await (const chunk of stream.iterator({ destroyOnReturn: false })) chunks.push(chunk)
        return hash(Buffer.concat(chunks))
      }
      app.post('/duplex', { duplex: true }, async (request, reply) => {
        reply.duplex.end(await keep(request, reply.duplex))
      })
      app.post('/transfer', { duplex: true }, async (request, reply) => {
        const chunks: Uint8Array[] = []
        // As when it is sent to a worker or through a byte stream: the memory of a chunk is not shared.
        for await (const chunk of reply.duplex) chunks.push(structuredClone(chunk, { transfer: [chunk.buffer] }))
        reply.duplex.end(hash(Buffer.concat(chunks)))
      })
      app.removeAllContentTypeParsers()
      app.addContentTypeParser('*', keep)
      app.post('/plain', async (request) => request.body)
      app.get('/detach', { duplex: true }, async (request, reply) => {
        const { socket, head } = reply.duplex.detach()
        socket.unshift(head)
        socket.end('HTTP/1.1 200 OK\r\n\r\n' + await keep(request, socket))
      })
    })
    await Promise.all(['a', 'b', 'c', 'd'].map(async (letter) => {
      const wire = await connect()
      const content = [100, 10_000, 20_000, 3_000_000].map((size, i) => letter.repeat(size) + i).join('')
      for (const path of ['/duplex', '/transfer', '/plain', '/duplex']) {
        wire.send(OPEN(path))
        for (let at = 0; at < content.length; at += 70_000) {
          wire.send(chunk(content.slice(at, at + 70_000)))
          await immediate()
        }
        t.equal((await wire.send('0\r\n\r\n').response()).body, hash(content), path)
      }
      wire.send(GET('/detach')).socket.end(content)
      t.equal((await wire.response()).body, hash(content))
    }))
  })
}

t.test('chunks are collected with the young generation, in a process that exposes gc', IN_PLACE, async (t) => {
  t.teardown(() => { globalThis.gc = undefined })
  for (const transport of TRANSPORTS) {
    const { connect } = await serve(t, transport, (app) => {
      app.post('/', { duplex: true }, async (_request, { duplex }) => {
        let size = 0
        for await (const chunk of duplex) size += chunk.length
        duplex.end(String(size))
      })
    })
    const collections: unknown[] = []
    for (const gc of [undefined, (options: unknown) => collections.push(options)] as unknown as typeof globalThis.gc[]) {
      globalThis.gc = gc
      const wire = await connect()
      wire.send(OPEN('/'))
      for (let sent = 0; sent < 2 * COLLECT_AFTER; sent += MIB) {
        if (!wire.socket.write(chunk('a'.repeat(MIB)))) await once(wire.socket, 'drain')
      }
      t.equal((await wire.send(END).response()).body, String(2 * COLLECT_AFTER), transport)
    }
    t.strictSame(collections, [{ type: 'minor' }, { type: 'minor' }], transport)
  }
})

t.test('V8 knows this kind of collection', async (t) => {
  const collected = new Promise<number>((resolve) => {
    const observer = new PerformanceObserver((list) => {
      for (const { detail } of list.getEntries() as unknown as { detail: { kind: number, flags: number } }[]) {
        if ((detail.flags & constants.NODE_PERFORMANCE_GC_FLAGS_FORCED) === 0) continue // V8 began it on its own
        observer.disconnect()
        resolve(detail.kind)
      }
    })
    observer.observe({ entryTypes: ['gc'] })
  })
  collectYoungGarbage()
  t.equal(await collected, constants.NODE_PERFORMANCE_GC_MINOR)
})

t.test('methods that were replaced before the plugin was loaded', async (t) => {
  const replaced: [object, string, (args: any[]) => unknown][] = [
    [Duplex.prototype, 'write', ([chunk]) => chunk],
    [Readable.prototype, 'push', ([chunk]) => chunk],
    [Socket.prototype, '_writeGeneric', ([many, data]) => many ? data[data.length - 2]?.chunk : data],
    [EventEmitter.prototype, 'emit', ([event, chunk]) => event === 'data' ? chunk : null]
  ]
  for (const [prototype, method, chunkOf] of replaced) {
    await t.test(method, async (t) => {
      const kept: Buffer[] = []
      const copies: Buffer[] = []
      const original = Object.getOwnPropertyDescriptor(prototype, method)!
      t.teardown(() => { Object.defineProperty(prototype, method, original) })
      tap(prototype, method, (...args) => {
        const chunk = chunkOf(args)
        if (!Buffer.isBuffer(chunk) || chunk.length < 16 * 1024) return
        kept.push(chunk)
        copies.push(Buffer.from(chunk))
      })
      const { default: plugin } = t.mockRequire<typeof import('../../lib/index.ts')>('../../lib/index.ts', {})
      const app = Fastify()
      t.teardown(() => app.close())
      await app.register(plugin)
      app.post('/', { duplex: true }, (_request: FastifyRequest, { duplex }: FastifyReply) => { duplex.pipe(duplex) })
      await app.listen({ port: 0, host: '127.0.0.1' })
      const wire = await dial('tcp', { port: (app.server.address() as AddressInfo).port, host: '127.0.0.1' })
      t.teardown(() => wire.socket.destroy())
      wire.send(OPEN('/')).send(chunks(content(1, 4 * MIB))).send(END)
      await wire.head()
      t.equal(await hashOf(wire, 4 * MIB), hash(content(1, 4 * MIB)))
      t.ok(kept.length > 0)
      t.ok(kept.every((chunk, i) => chunk.equals(copies[i])), 'it has not changed')
    })
  }
})

/** Calls `look` with the arguments of each call of a method. */
function tap (object: any, method: string, look: (...args: any[]) => void): void {
  const original = object[method]
  object[method] = function (...args: any[]) {
    look(...args)
    return original.apply(this, args)
  }
}

// Listeners that are added during pipe() could be mistaken for its listener.
const bystanders: Record<string, (source: HttpDuplex, to: HttpDuplex, keep: (chunk: Buffer) => void, t: Test) => void> = {
  'a listener that writes, after a pipe has failed': (source, to, keep, t) => {
    const fail = (event: string): void => { if (event === 'end') throw new Error('mine') }
    source.on('newListener', fail)
    t.throws(() => source.pipe(to), { message: 'mine' })
    source.off('newListener', fail)
    source.on('data', (chunk: Buffer) => {
      keep(chunk)
      to.write(chunk)
    })
  },
  'a listener from before a pipe that is undone at once': (source, to, keep) => {
    source.on('data', keep)
    to.once('pipe', () => source.unpipe(to))
    source.pipe(to, { end: false })
  },
  'a listener added in the pipe event, before unpipe()': (source, to, keep) => {
    to.once('pipe', () => source.on('data', keep))
    source.pipe(to, { end: false })
    source.unpipe(to)
  },
  'a second pipe made in the pipe event, before unpipe()': (source, to, keep) => {
    to.once('pipe', () => source.pipe(new Writable({ highWaterMark: 64 * MIB, write (chunk, encoding, done) { done(keep(chunk) as undefined) } })))
    source.pipe(to, { end: false })
    source.unpipe(to)
  }
}
for (const [name, join] of Object.entries(bystanders)) {
  t.test(`content seen by ${name} can be kept`, async (t) => {
    const { open } = await handled(t, 'tcp')
    const source = await open('/source')
    const to = await open('/to')
    to.duplex.flushHeaders()
    const kept: Buffer[] = []
    join(source.duplex, to.duplex, (chunk) => { kept.push(chunk) }, t)
    source.duplex.resume()
    const bytes = content(1, 4 * MIB)
    source.wire.send(chunks(bytes)).send(END)
    await once(source.duplex, 'end')
    t.equal(hash(Buffer.concat(kept)), hash(bytes))
  })
}

t.test('content has memory that is not shared', async (t) => {
  const SECRET = 'Cookie: secret'
  const head = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: a\r\n${SECRET}\r\nTransfer-Encoding: chunked\r\n\r\n`

  function isUnshared (t: Test, content: Buffer): void {
    t.equal(content.length, content.buffer.byteLength, 'nothing else is in it')
    structuredClone(content.buffer, { transfer: [content.buffer as ArrayBuffer] }) // and nobody else needs it
  }

  for (const [name, kind] of Object.entries(KINDS)) {
    await t.test(name, async (t) => {
      const { ask, connect } = await serveKind(t, kind, (app, routeOptions) => {
        app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
          duplex.on('data', (content: Buffer) => isUnshared(t, content))
          await once(duplex, 'end')
          duplex.end('x')
        })
      })
      if (kind.http2) {
        // Two streams at once: they may come in one read.
        const both = await Promise.all([ask('/'), ask('/')])
        for (const one of both) {
          one.write('abc')
          one.end()
        }
        for (const one of both) t.equal(await one.body(), 'x')
      } else {
        const wire = await connect()
        for (let i = 0; i < 3; i++) wire.send((head('/') + chunk('abc') + chunk('def') + '0\r\n\r\n').repeat(2))
        wire.send(`POST / HTTP/1.1\r\nHost: a\r\n${SECRET}\r\nContent-Length: 3\r\n\r\nabc`.repeat(2))
        for (let i = 0; i < 8; i++) t.equal((await wire.response()).body, 'x')
      }
    })
  }

  await t.test('the head of a detached connection', async (t) => {
    const { connect } = await serve(t, 'tcp', (app) => {
      app.post('/', { duplex: true }, async (_request, { duplex }) => {
        const { socket, head } = duplex.detach()
        t.equal(head.toString(), 'behind')
        isUnshared(t, head)
        socket.end('detached')
      })
    })
    const wire = await connect()
    wire.send(`POST / HTTP/1.1\r\nHost: a\r\n${SECRET}\r\nContent-Length: 0\r\n\r\nbehind`)
    await wire.ended
  })
})

t.test('listeners of the raw socket get the bytes as sent, and may keep them', async (t) => {
  for (const method of ['on', 'prependListener'] as const) {
    for (const transport of ['tcp', 'tls', 'unix'] as const) {
      await t.test(`${transport}, ${method}`, async (t) => {
        const seen: Buffer[] = []
        const { connect } = await serve(t, transport, (app) => {
          app.post('/', { duplex: true }, async (request, reply) => {
            request.socket[method]('data', (chunk: Buffer) => { seen.push(chunk) })
            const { duplex } = reply
            duplex.flushHeaders()
            for await (const content of duplex) duplex.write(content)
            duplex.end()
          })
        })
        const wire = await connect()
        wire.send(OPEN('/'))
        await wire.head()
        const body = chunk('abc') + chunk('defg') + chunk('x'.repeat(100)) + '0\r\n\r\n'
        wire.send(body)
        t.equal(await wire.body(), 'abcdefg' + 'x'.repeat(100))
        t.equal(Buffer.concat(seen).toString(), body)
      })
    }
  }
})

async function relay (t: Test, { connect }: Served, size: number): Promise<void> {
  const wire = await connect()
  wire.send(FRAMINGS.length(content(1, size)))
  await wire.head()
  t.equal(await hashOf(wire, size), hash(content(1, size)))
}

t.test('private buffers are released, however a relay ends', IN_PLACE, async (t) => {
  const closed: Promise<unknown>[] = []
  const served = await serve(t, 'tcp', (app) => {
    app.addHook('onRequest', async (request) => { closed.push(once(request.raw.socket, 'close')) })
    echo(app)
  })
  const relayed = countRelayed(t)
  for (let wave = 0; wave < 2; wave++) {
    const wires = await Promise.all(Array.from({ length: MAX_PRIVATE + 2 }, async () => {
      const wire = await served.connect()
      wire.socket.pause()
      return wire.send(OPEN('/')).send(chunks(content(1, 12 * MIB)))
    }))
    await untilStuck(() => queued(...wires))
    t.ok(relayed() > 0, 'while they are stuck')
    for (const { socket } of wires) socket.resetAndDestroy()
    await Promise.all(closed)
    await relay(t, served, 4 * MIB)
    closed.length = 0
    t.ok(relayed() > 0, 'after they were cut off')
  }
  // These connections stay open.
  for (let i = 0; i < MAX_PRIVATE + 2; i++) await relay(t, served, 4 * MIB)
  relayed()
  await relay(t, served, 4 * MIB)
  t.ok(relayed() > 0, 'after they have ended')
})

t.test('a private buffer is used again when all of it is written', IN_PLACE, async (t) => {
  const { connect } = await serve(t, 'tcp', echo)
  const relayed = countRelayed(t)
  const wire = await connect()
  wire.socket.pause()
  wire.send(FRAMINGS.length(content(1, 12 * MIB)))
  await untilStuck(() => queued(wire))
  t.ok(relayed() > 0)
  wire.socket.resume()
  await wire.head()
  t.equal(await hashOf(wire, 12 * MIB), hash(content(1, 12 * MIB)))
  t.ok(relayed() > 0)
})

t.test('a connection that has switched buffers too often uses the shared one', IN_PLACE, async (t) => {
  const { connect } = await serve(t, 'tcp', echo)
  const relayed = countRelayed(t)
  const wire = await connect()
  const bytes = content(1, 600 * 1024)
  const message = FRAMINGS.length(bytes)
  for (let i = 0; i < MAX_SWITCHES; i++) await wire.request(message.toString('latin1'))
  t.ok(relayed() > 0)
  for (let i = 0; i < 5; i++) t.equal((await wire.request(message.toString('latin1'))).body, bytes.toString('latin1'))
  t.equal(relayed(), 0)
})

/** Sends a little at a time until nothing more is read. */
async function fill (wires: readonly Wire[]): Promise<void> {
  const bytes = content(1, 20 * 1024)
  for (let open = wires; open.length > 0; open = open.filter((wire) => queued(wire) === 0)) {
    for (const wire of open) wire.send(chunk(bytes.toString('latin1')))
    await immediate()
    await immediate()
  }
  await untilStuck(() => queued(...wires))
}

for (const leaves of [false, true]) {
  t.test(`stuck content holds a limited amount of memory${leaves ? ', after its source is destroyed' : ''}`, IN_PLACE, async (t) => {
    const { open } = await handled(t, 'unix')
    const clients = 8 * MAX_PRIVATE
    const from: Opened[] = []
    const to: Opened[] = []
    for (let i = 0; i < clients; i++) {
      from.push(await open(`/from${i}`))
      to.push(await open(`/to${i}`))
    }
    const before = memory()
    for (const [i, { wire, duplex }] of to.entries()) {
      wire.socket.pause()
      duplex.flushHeaders()
      from[i].duplex.pipe(duplex, { end: false })
      if (!leaves) continue
      await fill([from[i].wire])
      const { socket } = from[i].duplex
      socket.destroy()
      await once(socket, 'close')
    }
    if (!leaves) await fill(from.map(({ wire }) => wire))
    const atClients = [...from, ...to].reduce((sum, { wire: { socket } }) => sum + socket.readableLength + socket.writableLength, 0)
    const growth = memory() - before - atClients
    const most = MAX_PRIVATE * READ_SIZE + clients * 96 * 1024
    t.ok(growth < most, `grown by ${growth} bytes, of ${most}`)
  })
}

t.test('a buffer that a detached connection may still send from is never read into again', IN_PLACE, async (t) => {
  const { requestPrivate } = ReadBuffers.prototype
  t.teardown(() => { ReadBuffers.prototype.requestPrivate = requestPrivate })
  const owns = new Set<PrivateBuffer>()
  ReadBuffers.prototype.requestPrivate = function () {
    const own = requestPrivate.call(this)
    if (own !== null) owns.add(own)
    return own
  }
  const { open, openTunnel } = await handled(t, 'tcp')
  const source = await open('/source')
  const tunnel = await openTunnel('/tunnel')
  tunnel.wire.socket.pause()
  source.duplex.pipe(tunnel.duplex, { end: false })
  source.wire.send(chunks(content(1, 12 * MIB)))
  await untilStuck(() => source.duplex.bytesRead)
  source.duplex.unpipe(tunnel.duplex)
  const { socket } = tunnel.duplex
  const own = [...owns].find(({ writingSocket }) => writingSocket === socket)!
  t.ok(own, 'unsent content is in a private buffer')
  tunnel.duplex.detach()
  socket.destroy() // as when it is sent to another process
  source.duplex.destroy()
  owns.clear()
  await Promise.all(Array.from({ length: MAX_PRIVATE }, async (_, i) => {
    const { wire, duplex } = await open(`/x${i}`)
    duplex.pipe(duplex)
    wire.send(chunks(content(2, 4 * MIB)))
    await wire.head()
    t.equal(await hashOf(wire, 4 * MIB), hash(content(2, 4 * MIB)))
  }))
  t.ok(owns.size > 0)
  t.notOk(owns.has(own))
})
