// Which internals of Node the plugin needs, and what it does in a Node or another runtime that lacks them.

import { EventEmitter, once } from 'node:events'
import http from 'node:http'
import { Duplex, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import { getHeapSpaceStatistics } from 'node:v8'
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import t from 'tap'
import duplex from '../../lib/index.ts'
import { hookParser, wakeParser } from '../../lib/node/parser.ts'
import { otherRuntime } from '../../lib/node/runtime.ts'
import { fillSilently, neverReadAhead, shortLived, skipReadable } from '../../lib/node/streams.ts'
import { collectGarbage, collectYoungGarbage } from '../support/garbage.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.type(request.headers['content-type'] ?? 'application/octet-stream')
  await pipeline(reply.duplex, reply.duplex)
}

t.test('runtimes whose connections cannot be borrowed', async (t) => {
  t.equal(otherRuntime(), null)
  t.equal(otherRuntime({ node: '26.3.0', bun: '1.4.5' }), 'Bun 1.4.5')
  t.equal(otherRuntime({ node: '26.3.0', deno: '2.9.6' }), 'Deno 2.9.6')
  const { default: plugin } = t.mockRequire('../../lib/index.ts', { '../../lib/node/runtime.ts': { otherRuntime: () => 'Bun 1.4.5' } }) as { default: typeof duplex }
  const lines: { level: number, msg: string }[] = []
  await Fastify({ logger: { stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } } }).register(plugin)
  t.match(lines, [{ level: 40, msg: /cannot take connections: Bun 1.4.5 reads and writes them itself. Routes are full duplex all the same, but .* 501/ }])
  t.equal(lines.length, 1)
})

t.test('a Node whose parser cannot be put to sleep', async (t) => {
  const { default: plugin } = t.mockRequire('../../lib/index.ts', {
    '../../lib/handoff/probe.ts': { ...require('../../lib/handoff/probe.ts'), missingFromNode: () => 'something' }
  }) as { default: typeof duplex }
  const lines: { level: number, msg: string }[] = []
  const app = Fastify({ logger: { stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } } })
  await app.register(plugin)
  t.match(lines, [{ level: 40, msg: /cannot take connections: Node v.* something/ }])
  lines.length = 0
  const other = Fastify({
    serverFactory: () => new EventEmitter() as http.Server,
    logger: { stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } }
  })
  await other.register(duplex)
  t.match(lines, [{ level: 40, msg: /cannot take connections: the server of this serverFactory/ }])
  other.post('/', { duplex: true }, echo)
  t.equal((await other.inject({ method: 'POST', url: '/', payload: 'a' })).payload, 'a')

  for (const createServer of [() => new EventEmitter(), () => { throw new Error('none') }, http.createServer]) {
    const handoff = t.mockRequire('../../lib/handoff/probe.ts', { 'node:http': { ...http, createServer } }) as typeof import('../../lib/handoff/probe.ts')
    t.equal(handoff.missingFromNode() === null, createServer === http.createServer)
    t.equal(handoff.missingFromNode() === null, createServer === http.createServer, 'tried once')
  }
  const strange = (change: (server: http.Server) => void) => (listener: http.RequestListener) => {
    const server = http.createServer(listener)
    change(server)
    return server
  }
  const parsing = (execute: (parse: (chunk: Buffer) => number, chunk: Buffer) => number) => (server: http.Server) => {
    server.on('connection', (socket: any) => {
      const { parser, parser: { constructor } } = socket
      const parse = constructor.prototype.execute.bind(parser)
      parser.constructor = Object.assign(Object.create(constructor), { prototype: { execute: execute.bind(null, parse) } })
      socket.on('close', () => { delete parser.constructor })
    })
  }
  const changes: [string, (server: http.Server) => void][] = [
    ['listeners', (server) => server.on('connection', (socket) => socket.removeAllListeners('timeout'))],
    ['end of the head', parsing((parse, chunk) => { parse(chunk); return chunk.length })],
    ['request after an exchange', parsing((parse, chunk) => chunk.includes('POST') ? parse(chunk) : chunk.length)],
    // On Node 26.12, which does not see later that a callback is replaced, what wakes the parser was a request without Host to Node.
    ['request after an exchange', parsing((parse, chunk) => {
      if (chunk.includes('POST')) return parse(chunk)
      if (chunk.includes('Host')) parse(Buffer.from('GET / HTTP/1.1\r\n\r\n'))
      return chunk.length
    })]
  ]
  for (const [missing, change] of changes) {
    const handoff = t.mockRequire('../../lib/handoff/probe.ts', { 'node:http': { ...http, createServer: strange(change) } }) as typeof import('../../lib/handoff/probe.ts')
    t.equal(handoff.missingFromNode(), missing)
  }
})

t.test('replaced stream methods are recognized', (t) => {
  const duplex = new (class extends Duplex {})()
  const isIntact = (): boolean => t.mockRequire<typeof import('../../lib/node/memory.ts')>('../../lib/node/memory.ts', {}).pipesByNode(duplex)
  t.ok(isIntact())
  const { write } = Duplex.prototype
  const replaced: Record<string, unknown> = {
    'a wrapper': function (this: Duplex, ...args: any[]) { return write.apply(this, args as any) },
    'one that looks first': function (this: Duplex, ...args: any[]) { return this.writable && write.apply(this, args as any) },
    'one that does nothing': () => true,
    'one that catches': function (this: Duplex, ...args: any[]) { try { return write.apply(this, args as any) } catch { return true } },
    'a Proxy with a trap': new Proxy(write, { apply: (target, that, args) => Reflect.apply(target, that, args) }),
    'none at all': undefined
  }
  for (const [name, method] of Object.entries(replaced)) {
    Duplex.prototype.write = method as typeof write
    const intact = isIntact()
    // Before anything is asserted: the report of the test is written with it.
    Duplex.prototype.write = write
    t.notOk(intact, name)
  }
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  t.ok(isIntact(), 'whatever the app wants of stack traces')
  t.equal(Error.stackTraceLimit, 0)
  Error.stackTraceLimit = stackTraceLimit
  t.end()
})

t.test('a parser that keeps its callbacks, as on Node 26.12, is woken without a word to Node', async (t) => {
  const called: string[] = []
  class KeepingParser {
    static readonly kOnHeadersComplete = 1
    static readonly kOnMessageComplete = 2
    static readonly kOnExecute = 3
    // The one has as many parameters as on Node 20 to 26, and the other more.
    1 = (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number): number => called.push(`head ${[a, b, c, d, e, f, g, h, i].join('')}`)
    2 = (a: number, b: number, c: number, d: number, e: number, f: number, g: number, h: number, i: number, j: number): number => called.push(`message ${[a, b, c, d, e, f, g, h, i, j].join('')}`)
    3 = (): void => {}
    kept: ((...args: any[]) => number)[] = []
    execute (buffer: Buffer): number {
      for (const callback of this.kept) t.equal(callback.call(this, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9), called.length)
      return buffer.length
    }
  }
  const parser = new KeepingParser()
  hookParser(parser as never, { onHead: () => 0, onExecuted: () => {}, execute: () => 0 })
  parser.kept = [parser[1], parser[2]]
  wakeParser(parser as never)
  t.strictSame(called, [])
  KeepingParser.prototype.execute.call(parser, Buffer.alloc(0))
  t.strictSame(called, ['head 012345678', 'message 0123456789'])
})

t.test('streams need no tick for what nobody waits for', async (t) => {
  const ticksOf = (action: () => void): number => {
    const { nextTick } = process
    let ticks = 0
    process.nextTick = (...args: Parameters<typeof nextTick>) => {
      ticks++
      nextTick(...args)
    }
    action()
    process.nextTick = nextTick
    return ticks
  }
  const push = (stream: Readable): void => { stream.push('a') }
  const ordinary = new Readable({ read () { push(this) } })
  t.equal(ticksOf(() => { t.equal(String(ordinary.read()), 'a') }), 2, 'one for "readable", one to read ahead')
  const silent = new Readable({ read () { fillSilently(this, push) } })
  neverReadAhead(silent)
  t.equal(ticksOf(() => { t.equal(String(silent.read()), 'a') }), 0)
  silent.read(0)
  await once(silent, 'readable')
  t.equal(silent.readableLength, 1, 'a listener is told')
  let received = ''
  silent.removeAllListeners().on('data', (chunk) => {
    received += chunk
    if (received.length === 10) silent.pause()
  })
  await once(silent, 'pause')
  t.equal(received, 'aaaaaaaaaa', 'and a stream that flows goes on')

  const request = new Readable({ read () {} })
  skipReadable(request)
  t.equal(ticksOf(() => { request.push(null) }), 0)
  await once(request.on('readable', () => {}), 'end') // a listener makes it look
})

t.test('a request that nobody has read ends with its exchange', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(duplex)
  const events: string[] = []
  app.all('/', { duplex: true }, (request, reply) => {
    for (const event of ['resume', 'end', 'close', 'error', 'aborted']) request.raw.on(event, () => events.push(event))
    reply.duplex.resume().end('a')
  })
  t.equal((await app.inject('/')).payload, 'a')
  events.length = 0
  const agent = new http.Agent({ keepAlive: true })
  t.teardown(() => agent.destroy())
  const url = await app.listen()
  for (let i = 0; i < 2; i++) {
    events.length = 0
    const closed = new Promise((resolve) => { app.server.once('request', (request) => request.once('close', resolve)) })
    const [response] = await once(http.request(url, { agent, method: 'POST' }).end(), 'response')
    for await (const chunk of response) t.equal(String(chunk), 'a')
    await closed
    t.strictSame(events.filter((event) => event !== 'resume'), ['end', 'close'])
  }
})

t.test('a function literal that is assigned to a property survives minor garbage collections', async (t) => {
  const BIG = 1_000_000
  interface Owner { refer: (() => Owner) | null, big: number[] | null }
  const assigned = (): Owner => {
    const owner: Owner = { refer: null, big: null }
    owner.refer = () => owner
    return owner
  }
  const passed = (): Owner => {
    const owner: Owner = { refer: null, big: null }
    owner.refer = shortLived(() => owner)
    return owner
  }
  const oldSize = (): number => getHeapSpaceStatistics().find(({ space_name: name }) => name === 'large_object_space')!.space_used_size
  /** How often an object that nothing refers to any more was moved to the old generation. */
  const survivals = async (make: () => Owner): Promise<number> => {
    let count = 0
    for (let round = 0; round < 10; round++) {
      for (let i = 0; i < 100; i++) make()
      collectGarbage()
      const before = oldSize()
      setImmediate(() => { make().big = new Array(BIG).fill(0) })
      await immediate()
      await immediate()
      collectYoungGarbage()
      if (oldSize() - before > BIG) count++
    }
    return count
  }
  t.ok(await survivals(assigned) > 5)
  t.equal(await survivals(passed), 0)
})
