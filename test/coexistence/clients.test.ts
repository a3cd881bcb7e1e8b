// Together with client libraries: msw, which mocks requests in the process of the server, and dockerode, whose requests with
// hijacked connections are answered by an app that implements Docker's API with duplex routes.

import { once } from 'node:events'
import http from 'node:http'
import type { Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { PassThrough, type Readable, Transform } from 'node:stream'
import Docker from 'dockerode'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { HttpResponse, http as mocked } from 'msw'
import { type SetupServer, setupServer } from 'msw/node'
import t, { type Test } from 'tap'
import { type Served, chunk, chunked, serve } from '../support/wire.ts'
import { checkPlain, converse, get, open, upper } from './support.ts'

/** Makes a function that reads at least `size` characters of a stream, or everything up to its end. */
function readerOf (stream: Readable): (size?: number) => Promise<string> {
  let content = ''
  let wake = (): void => {}
  stream.on('data', (chunk) => {
    content += chunk
    wake()
  })
  stream.on('end', () => wake())
  return async (size = Infinity) => {
    while (content.length < size && !stream.readableEnded) await new Promise<void>((resolve) => { wake = resolve })
    const all = content
    content = ''
    return all
  }
}

// msw

/** Like `converse`, but with Node's own client. */
async function converseByRequest (t: Test, port: number, agent: http.Agent, path = '/upper'): Promise<void> {
  const request = http.request({ port, host: '127.0.0.1', path, method: 'POST', agent })
  request.write('one')
  const [response] = await once(request, 'response')
  t.equal(response.statusCode, 200)
  const read = readerOf(response)
  t.equal(await read(3), 'ONE')
  request.write('two')
  t.equal(await read(3), 'TWO')
  request.end()
  t.equal(await read(), '')
}

/** Like `checkPlain`, but with Node's own client. */
async function checkPlainByRequest (t: Test, port: number, agent: http.Agent): Promise<void> {
  const [response] = await once(http.get({ port, host: '127.0.0.1', path: '/plain', agent }), 'response')
  t.equal(await text(response), 'plain')
}

const ASK = { fetch: (url: string) => fetch(url).then((response) => response.text()), get: (url: string) => once(http.get(url), 'response').then(([response]) => text(response)) }

for (const order of ['before', 'after']) {
  t.test(`msw, activated ${order} the app is created`, async (t) => {
    let answers = (): Promise<void> => Promise.resolve()
    const mock: SetupServer = setupServer(mocked.get('*/word', async () => {
      await answers()
      return HttpResponse.text('mocked')
    }))
    const activate = (): void => {
      mock.listen({ onUnhandledRequest: 'bypass' })
      t.teardown(() => mock.close())
    }
    if (order === 'before') activate()
    const sockets = new Set<unknown>()
    const { app, connect, port } = await serve(t, 'tcp', (app) => {
      app.addHook('onRequest', async (request) => { sockets.add(request.raw.socket) })
      app.post('/upper', { duplex: true }, upper)
      app.get('/plain', async () => 'plain')
      app.get('/word', async () => 'real')
      for (const by of ['fetch', 'get'] as const) {
        app.post(`/ask/${by}`, { duplex: true }, async function * (request, reply) {
          for await (const chunk of reply.duplex) yield `${chunk}: ${await ASK[by](`http://127.0.0.1:${port}/word`)}`
        })
      }
    })
    if (order === 'after') activate()
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    t.teardown(() => agent.destroy())

    const wire = await connect()
    await converse(t, wire)
    await checkPlain(t, wire)
    await converseByRequest(t, port, agent)
    await checkPlainByRequest(t, port, agent)
    await converseByRequest(t, port, agent)
    t.match(await wire.request(get('/word')), { body: 'real' }, 'incoming requests are not mocked')

    for (const by of ['fetch', 'get']) {
      wire.send(open(`/ask/${by}`) + chunk('one'))
      t.match(await wire.head(), { statusCode: 200 })
      t.equal(await wire.content(11), 'one: mocked')
      // Another exchange runs while the mock has not yet answered.
      const asked = new Promise<void>((resolve) => {
        answers = async () => {
          resolve()
          await once(app.server, 'answer')
        }
      })
      wire.send(chunk('two'))
      await asked
      await converse(t, await connect())
      answers = () => Promise.resolve()
      app.server.emit('answer')
      t.equal(await wire.content(11), 'two: mocked')
      wire.send('0\r\n\r\n')
      t.equal(await wire.body(), '')
    }
    await checkPlain(t, wire)

    // Exchanges that are open while the mock is closed.
    wire.send(open('/ask/fetch') + chunk('one'))
    await wire.head()
    t.equal(await wire.content(11), 'one: mocked')
    const request = http.request({ port, host: '127.0.0.1', path: '/upper', method: 'POST', agent })
    request.write('one')
    const [response] = await once(request, 'response')
    const read = readerOf(response)
    t.equal(await read(3), 'ONE')
    mock.close()
    wire.send(chunk('two'))
    t.equal(await wire.content(9), 'two: real')
    wire.send('0\r\n\r\n')
    t.equal(await wire.body(), '')
    request.end('two')
    t.equal(await read(), 'TWO')
    t.match(await wire.request(chunked('/ask/get', 'one')), { body: 'one: real' })
    await converse(t, wire)
    await checkPlain(t, wire)
    sockets.clear()
    const another = new http.Agent({ keepAlive: true, maxSockets: 1 })
    t.teardown(() => another.destroy())
    await converseByRequest(t, port, another)
    await checkPlainByRequest(t, port, another)
    t.equal(sockets.size, 1, 'on one connection')
  })
}

// dockerode

const STDOUT = 1
const STDERR = 2

/** A frame of Docker's multiplexed streams. */
function frame (type: number, content: string): Buffer {
  const head = Buffer.from([type, 0, 0, 0, 0, 0, 0, 0])
  head.writeUInt32BE(Buffer.byteLength(content), 4)
  return Buffer.concat([head, Buffer.from(content)])
}

/** The program in the container. It writes its input in upper case to stdout, and the sizes to stderr. */
async function * shout (input: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let size = 0
  for await (const chunk of input) {
    size += chunk.length
    yield frame(STDOUT, chunk.toString().toUpperCase())
    yield frame(STDERR, `${chunk.length};`)
  }
  yield frame(STDOUT, 'bye')
  yield frame(STDERR, `${size} in total`)
}

const UNKNOWN = { message: 'No such container' }

/** The part of Docker's API that the tests use. */
const docker = async (app: FastifyInstance): Promise<void> => {
  const upgrades = (request: FastifyRequest): boolean => request.headers.upgrade === 'tcp'
  const type = 'application/vnd.docker.multiplexed-stream'

  app.post('/containers/:id/attach', { duplex: true }, async (request, reply) => {
    const { id } = request.params as { id: string }
    if (id !== 'c1') return reply.code(404).send(UNKNOWN)
    if (!upgrades(request)) return reply.code(400).send({ message: 'no upgrade' })
    // dockerode also sends its options as a body. The bytes after it are the input of the container.
    const { duplex } = reply.code(101).header('upgrade', 'tcp').type(type)
    await skip(duplex, Number(request.headers['content-length']))
    await pipeline(duplex, shout, duplex)
  })

  app.post('/exec/:id/start', { duplex: true }, async (request, reply) => {
    const options = JSON.parse(await text(reply.duplex))
    if (options.Tty !== true) return reply.code(409).send({ message: 'a terminal is required' })
    // This is what Docker itself does.
    const { socket, head } = reply.duplex.detach()
    socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n')
    if (head.length > 0) socket.unshift(head)
    const terminal = new Transform({
      transform (chunk, encoding, done) { done(null, String(chunk).toUpperCase()) },
      flush (done) { done(null, 'exit') }
    })
    terminal.push('$ ')
    socket.pipe(terminal).pipe(socket)
  })

  app.get('/containers/:id/logs', { duplex: true }, async function * (request, reply) {
    const { follow } = request.query as { follow?: string }
    reply.type(type)
    yield frame(STDOUT, 'started')
    yield frame(STDERR, 'warned')
    if (follow !== 'true') return
    for (const word of ['one', 'two']) {
      await once(app.server, 'line')
      yield frame(STDOUT, word)
    }
  })

  app.get('/containers/:id/json', async (request) => ({ Id: (request.params as { id: string }).id }))
}

/** Discards `length` bytes, and reads nothing beyond them. */
async function skip (duplex: FastifyReply['duplex'], length: number): Promise<void> {
  while (length > 0) {
    const chunk = duplex.read(Math.min(length, duplex.readableLength) || undefined)
    if (chunk === null) await once(duplex, 'readable')
    else length -= chunk.length
  }
}

for (const transport of ['tcp', 'unix'] as const) {
  t.test(`dockerode, over ${transport}`, async (t) => {
    const sockets = new Set<unknown>()
    const served: Served = await serve(t, transport, async (app) => {
      app.addHook('onRequest', async (request) => { sockets.add(request.raw.socket) })
      await app.register(docker, { prefix: '/v1.41' })
      app.post('/upper', { duplex: true }, upper)
      app.get('/plain', async () => 'plain')
    })
    const { app, connect, logged, log } = served
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    t.teardown(() => agent.destroy())
    const address = transport === 'unix' ? { socketPath: app.server.address() as unknown as string } : { host: '127.0.0.1', port: served.port, protocol: 'http' as const }
    const client = new Docker({ ...address, version: 'v1.41' })
    const container = client.getContainer('c1')
    const pooled = new Docker({ ...address, version: 'v1.41', agent } as object).getContainer('c1')
    const outputs = (stream: NodeJS.ReadableStream): Record<'out' | 'err', (size?: number) => Promise<string>> => {
      const [out, err] = [new PassThrough(), new PassThrough()]
      client.modem.demuxStream(stream, out, err)
      stream.on('end', () => {
        out.end()
        err.end()
      })
      return { out: readerOf(out), err: readerOf(err) }
    }

    await t.test('attach', async (t) => {
      const completed = logged('request completed')
      const stream = await container.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true })
      const { out, err } = outputs(stream)
      stream.write('one')
      t.equal(await out(3), 'ONE')
      t.equal(await err(2), '3;')
      stream.write('three')
      t.equal(await out(5), 'THREE')
      t.equal(await err(2), '5;')
      stream.end('end')
      t.equal(await out(), 'ENDbye')
      t.equal(await err(), '3;11 in total')
      t.match(await completed, { res: { statusCode: 101 } })
    })

    await t.test('attach, with much data', async (t) => {
      const stream = await container.attach({ stream: true, stdin: true, stdout: true, hijack: true })
      const { out, err } = outputs(stream)
      const line = 'a line of text\n'.repeat(200_000)
      stream.end(line)
      t.ok(await out() === line.toUpperCase() + 'bye')
      t.match(await err(), new RegExp(`;${line.length} in total$`))
    })

    await t.test('attach to an unknown container', async (t) => {
      await t.rejects(client.getContainer('c2').attach({ stream: true, stdin: true, stdout: true, hijack: true }), /HTTP code 404.*No such container/)
    })

    await t.test('exec', async (t) => {
      const stream = await client.getExec('e1').start({ hijack: true, stdin: true, Tty: true })
      const read = readerOf(stream)
      t.equal(await read(2), '$ ')
      stream.write('one')
      t.equal(await read(3), 'ONE')
      stream.write('two')
      t.equal(await read(3), 'TWO')
      stream.end()
      t.equal(await read(), 'exit')
    })

    await t.test('exec, refused', async (t) => {
      await t.rejects(client.getExec('e1').start({ hijack: true, stdin: true, Tty: false }), /HTTP code 409.*a terminal is required/)
    })

    await t.test('logs', async (t) => {
      sockets.clear()
      const stream = await pooled.logs({ follow: true, stdout: true, stderr: true })
      const { out, err } = outputs(stream)
      t.equal(await out(7), 'started')
      t.equal(await err(6), 'warned')
      app.server.emit('line')
      t.equal(await out(3), 'one')
      const completed = logged('request completed')
      app.server.emit('line')
      t.equal(await out(), 'two')
      await completed
      t.match(await pooled.inspect(), { Id: 'c1' })
      t.equal(sockets.size, 1, 'on one connection')
      t.strictSame(await pooled.logs({ follow: false, stdout: true, stderr: true }), Buffer.concat([frame(STDOUT, 'started'), frame(STDERR, 'warned')]))
    })

    const wire = await connect()
    await converse(t, wire)
    await checkPlain(t, wire)
    t.strictSame(log.filter(({ level }) => level > 40), [])

    // Unix sockets cannot be reset.
    if (transport === 'tcp') {
      const errored = logged('stream closed prematurely')
      const stream = await container.attach({ stream: true, stdin: true, stdout: true, hijack: true })
      const { out } = outputs(stream)
      stream.write('one')
      t.equal(await out(3), 'ONE')
      ;(stream as Socket).resetAndDestroy()
      t.match(await errored, { level: 30 }, 'a client that leaves')
      await checkPlain(t, wire)
    }
  })
}
