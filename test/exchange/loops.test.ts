// Loops over the chunks of a request: as Node's own iterator, with `destroyOnReturn: false`.

import type { Socket } from 'node:net'
import t from 'tap'
import { KINDS, serveKind } from '../support/kinds.ts'
import { OPEN, chunk, chunked, resolvers, serve } from '../support/wire.ts'

t.test('what a loop writes, and the end behind it, are one write to the socket', async (t) => {
  let writes = 0
  const { connect } = await serve(t, 'tcp', (app) => {
    app.server.on('connection', (socket: Socket) => {
      const { write } = socket
      socket.write = ((...args: Parameters<typeof write>) => { writes++; return write.apply(socket, args) }) as typeof write
    })
    app.post('/loop', { duplex: true }, async (_request, { duplex }) => {
      for await (const content of duplex) duplex.write(content)
      duplex.end()
    })
    app.post('/generator', { duplex: true }, async function * (_request, { duplex }) {
      yield * duplex
    })
  })
  for (const path of ['/loop', '/generator']) {
    const wire = await connect()
    for (const content of ['one', 'two']) {
      writes = 0
      wire.send(chunked(path, content))
      await wire.head()
      t.equal(await wire.body(), content)
      t.equal(writes, 1, path)
    }
  }
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: calls of next() and return() that do not wait for each other have their turns`, async (t) => {
    const first = resolvers<unknown>()
    const results = resolvers<unknown[]>()
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        duplex.setEncoding('utf8')
        const iterator = duplex[Symbol.asyncIterator]()
        const calls = [iterator.next(), iterator.next(), iterator.return!(), iterator.next()]
        duplex.flushHeaders()
        first.resolve(await calls[0])
        results.resolve(await Promise.all(calls))
        const rest = await duplex.toArray()
        duplex.end(rest.join(''))
      })
    })
    const client = await ask('/')
    t.equal(await client.status(), 200)
    client.write('one')
    t.strictSame(await first.promise, { value: 'one', done: false })
    client.write('two')
    t.strictSame((await results.promise).slice(1), [{ value: 'two', done: false }, { value: undefined, done: true }, { value: undefined, done: true }])
    client.write('three')
    client.end()
    t.match(await client.body(), /three$/, 'the stream was not destroyed')
  })

  t.test(`${name}: a loop whose stream is destroyed`, async (t) => {
    const codes = resolvers<unknown[]>()
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        const waiting = duplex[Symbol.asyncIterator]()
        const failed = waiting.next().catch((error) => error.code)
        const before = duplex[Symbol.asyncIterator]()
        duplex.destroy(Object.assign(new Error(), { code: 'MINE' }))
        const after = duplex[Symbol.asyncIterator]()
        codes.resolve([await failed, ...await Promise.all([before, after].map((iterator) => iterator.next().catch((error) => error.code))), await waiting.next()])
      })
    })
    const client = await ask('/')
    t.equal(await client.status(), 500)
    t.strictSame(await codes.promise, ['MINE', 'MINE', 'MINE', { value: undefined, done: true }])
  })
}

t.test('a loop over a stream that was read to its end, and is destroyed', async (t) => {
  const results = resolvers<unknown>()
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, { duplex }) => {
      duplex.resume().end().on('close', () => { results.resolve(duplex[Symbol.asyncIterator]().next()) })
    })
  })
  const wire = await connect()
  wire.send(chunked('/', 'some'))
  await wire.head()
  await wire.body()
  t.strictSame(await results.promise, { value: undefined, done: true })
})

t.test('a loop that waits for a malformed chunk', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, { duplex }) => {
      for await (const content of duplex) duplex.emit('seen', content)
    })
    app.addHook('onRequest', async (_request, { duplex }) => { duplex.on('seen', () => { seen.resolve() }) })
  })
  const seen = resolvers()
  const wire = await connect()
  wire.send(OPEN('/') + chunk('some'))
  await seen.promise
  wire.send('XX')
  t.equal((await wire.head()).statusCode, 400)
  t.match(await wire.body(), 'FST_ERR_DUPLEX_CHUNK')
  await wire.ended
})

t.test('a loop that goes on behind its handler has drainTimeout', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainTimeout: 1 } }, (_request, { duplex }) => {
      const loop = async (): Promise<void> => { for await (const content of duplex) duplex.emit('seen', content) }
      loop().catch(() => {})
      duplex.end('done')
    })
  })
  const wire = await connect()
  wire.send(OPEN('/') + chunk('some'))
  await wire.head()
  t.equal(await wire.body(), 'done')
  await wire.ended
})

t.test('the iterator of a loop can be given to another one', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, { duplex }) => {
      for await (const content of duplex[Symbol.asyncIterator]()) duplex.write(content)
      duplex.end()
    })
  })
  const wire = await connect()
  t.match(await wire.request(chunked('/', 'some', 'more')), { body: 'somemore' })
  t.match(await wire.request(chunked('/', 'again')), { body: 'again' })
})
