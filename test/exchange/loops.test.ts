// Loops over the chunks of a request: as Node's own iterator, with `destroyOnReturn: false`.

import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { setImmediate as immediate, setTimeout } from 'node:timers/promises'
import t from 'tap'
import { jsonl } from '../../lib/items/index.ts'
import type { HttpDuplex } from '../../types/index.d.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { run } from '../support/process.ts'
import { OPEN, TRANSPORTS, chunk, chunked, resolvers, serve } from '../support/wire.ts'

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

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: what a loop puts back is read again`, async (t) => {
    let closed = resolvers<void>()
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      const route = (path: string, read: (duplex: HttpDuplex) => Promise<string>): void => {
        app.post(path, { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
          duplex.once('close', closed.resolve).flushHeaders()
          duplex.end(await read(duplex))
        })
      }
      const firstOf = (duplex: HttpDuplex, chunk: Buffer): string => {
        if (chunk.length > 1) duplex.unshift(chunk.subarray(1))
        return String(chunk.subarray(0, 1))
      }
      route('/loops', async (duplex) => {
        let seen = ''
        for (let before = -1; before < seen.length;) {
          before = seen.length
          for await (const chunk of duplex) {
            seen += firstOf(duplex, chunk)
            if (seen.length > before) break
          }
        }
        return seen
      })
      route('/by-hand', async (duplex) => {
        let seen = ''
        const iterator = duplex[Symbol.asyncIterator]()
        for (let result; !(result = await iterator.next()).done;) seen += firstOf(duplex, result.value)
        return seen
      })
      route('/left', async (duplex) => {
        let seen = ''
        for await (const chunk of duplex) {
          seen += firstOf(duplex, chunk)
          if (seen !== '') break
        }
        return seen
      })
    })
    for (const [path, expected] of [['/loops', 'abcdef'], ['/by-hand', 'abcdef'], ['/left', 'a']]) {
      for (const parts of [['abcdef'], ['a', 'bcdef'], ['', 'abcdef'], ['abc', 'def']]) {
        closed = resolvers()
        const client = await ask(path)
        const [first, second] = parts
        if (first !== '') client.write(first)
        if (second === undefined) client.end()
        t.equal(await client.status(), 200)
        if (second !== undefined) {
          client.write(second)
          client.end()
        }
        t.equal(await client.body(), expected, `${path} ${parts}`)
        await closed.promise
      }
    }
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

t.test('a loop behind its handler has drainTimeout to take what is there, and none when it is left', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    for (const url of ['/stuck', '/resumed']) {
      app.post(url, { duplex: { drainTimeout: 1 } }, (_request, { duplex }) => {
        const loop = async (): Promise<void> => {
          for await (const content of duplex) {
            if (url === '/resumed') duplex.resume()
            await new Promise(() => content)
          }
        }
        loop().catch(() => {})
        duplex.end('done')
      })
    }
    for (const [url, count] of [['/left', 1], ['/both-left', 2]] as const) {
      app.post(url, { duplex: { drainTimeout: 1 } }, async (_request, { duplex }) => {
        const iterators = Array.from({ length: count }, () => duplex[Symbol.asyncIterator]())
        await iterators[0].next()
        for (const iterator of iterators) iterator.next().catch(() => {})
        for (const iterator of [...iterators, ...iterators]) iterator.return!().catch(() => {})
        duplex.end('done')
      })
    }
  })
  for (const [url, more] of [['/stuck', chunk('more')], ['/resumed', chunk('more')], ['/left', ''], ['/both-left', chunk('more')]]) {
    const wire = await connect()
    wire.send(OPEN(url) + chunk('some'))
    await wire.head()
    t.equal(await wire.body(), 'done')
    wire.send(more)
    await wire.ended
  }
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`a reader that waits for the client, or takes a little at a time, has not left: ${name}`, async (t) => {
    const drainTimeout = 20
    const collect = async (content: AsyncIterable<unknown>, pause = 0): Promise<string> => {
      let all = ''
      for await (const some of content) {
        all += String(some)
        if (pause > 0) await setTimeout(pause)
      }
      return all
    }
    const byTwo = async (stream: Readable): Promise<string> => {
      let all = ''
      await once(stream, 'readable')
      stream.on('readable', () => {})
      for (let content; (content = stream.read(2)) !== null; all += content) await setTimeout(drainTimeout / 2)
      stream.removeAllListeners('readable')
      return all + await collect(stream)
    }
    const readers: Record<string, (duplex: HttpDuplex) => Promise<string>> = {
      '/a loop': (duplex) => collect(duplex),
      '/a loop that works for long': (duplex) => collect(duplex, 5 * drainTimeout),
      '/a loop over the half': ({ requestBody }) => collect(requestBody),
      '/readable': (duplex) => new Promise((resolve) => {
        let all = ''
        duplex.on('readable', () => { all += duplex.read() ?? '' }).on('end', () => resolve(all))
      }),
      '/few bytes': byTwo,
      '/more bytes than there are': (stream) => new Promise((resolve) => {
        stream.on('readable', () => {
          const all = stream.read(7)
          if (all !== null) resolve(String(all))
        })
      }),
      '/few bytes of the half': ({ requestBody }) => byTwo(requestBody),
      '/paced': (duplex) => new Promise((resolve) => {
        let all = ''
        duplex.on('data', (content) => {
          all += content
          duplex.pause()
          setTimeout(drainTimeout / 2).then(() => duplex.resume())
        }).on('end', () => resolve(all))
      })
    }
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      for (const [url, read] of Object.entries(readers)) {
        app.post(url.replaceAll(' ', '-'), { ...routeOptions, duplex: { drainTimeout } }, (_request, { duplex }) => {
          read(duplex).then(received.resolve)
          duplex.end('done')
        })
      }
      app.post('/items', { ...routeOptions, duplex: { drainTimeout, receive: jsonl({}) } }, (_request, { duplex }) => {
        collect(duplex.items, drainTimeout / 2).then(received.resolve)
        duplex.end('done')
      })
    })
    let received = resolvers<string>()
    for (const url of [...Object.keys(readers), '/items']) {
      received = resolvers()
      const asked = await ask(url.replaceAll(' ', '-'), { 'content-type': 'application/jsonl' })
      asked.write(url === '/items' ? '1\n2\n3\n4\n5\n6\n' : '123456')
      t.equal(await asked.status(), 200)
      const body = asked.body()
      await setTimeout(5 * drainTimeout)
      asked.write('7')
      asked.end()
      t.equal(await received.promise, '1234567', url)
      t.equal(await body, 'done')
    }
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`a reader that is slower than the client reads to the end behind the response: ${name}`, async (t) => {
    const readers: Record<string, (duplex: HttpDuplex) => AsyncIterable<{ length: number }>> = {
      '/whole': (duplex) => duplex,
      '/half': ({ requestBody }) => requestBody,
      '/web': (duplex) => duplex.web().readable as any
    }
    const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      for (const [url, read] of Object.entries(readers)) {
        app.post(url, { ...routeOptions, duplex: true }, async ({ signal }, { duplex }) => {
          duplex.end('done')
          let size = 0
          for await (const chunk of read(duplex)) {
            size += chunk.length
            await setTimeout(5)
            t.notOk(signal.aborted)
          }
          received.resolve(size)
        })
      }
    })
    let received = resolvers<number>()
    for (const url of Object.keys(readers)) {
      for (const size of [30_000, 300_000]) {
        received = resolvers()
        const completed = logged('request completed')
        const asked = await ask(url)
        asked.write('a'.repeat(size))
        asked.end()
        t.equal(await asked.status(), 200)
        t.equal(await asked.body(), 'done')
        t.equal(await received.promise, size, url)
        await completed
      }
    }
  })
}

/** Waits until the request was received to its end, though not read. */
async function untilReceived (duplex: HttpDuplex): Promise<void> {
  while (!(duplex as unknown as { requestHasEnded: boolean }).requestHasEnded) await immediate()
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`what nobody reads when both bodies are complete is dropped, and does not look like the end: ${name}`, async (t) => {
    const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      const route = (url: string, read: (duplex: HttpDuplex, content: AsyncIterable<unknown>) => Promise<void>): void => {
        app.post(url, { ...routeOptions, duplex: { receive: url === '/items' ? jsonl({}) : undefined } as object }, async (_request, { duplex }) => {
          const content = url === '/items' ? (duplex as unknown as { items: AsyncIterable<unknown> }).items : duplex
          const loop = content[Symbol.asyncIterator]()
          t.equal(String((await loop.next()).value).trim(), '1')
          await loop.return!()
          begun.resolve()
          await untilReceived(duplex)
          await read(duplex, content)
        })
      }
      for (const url of ['/bytes', '/items']) {
        route(url, async (duplex, content) => {
          duplex.end('done')
          await once(duplex, 'close')
          await t.rejects(async () => { for await (const more of content) t.fail(String(more)) }, { code: 'ERR_STREAM_PREMATURE_CLOSE' })
          read.resolve('')
        })
      }
      route('/waiting', async (duplex) => {
        duplex.end('done')
        await finished(duplex)
        read.resolve('')
      })
      route('/half', async (duplex) => {
        const { requestBody } = duplex
        duplex.end('done')
        await completed
        read.resolve(Buffer.concat(await requestBody.toArray()).toString())
      })
    })
    let begun = resolvers<void>()
    let read = resolvers<string>()
    let completed: Promise<unknown>
    for (const [url, expected] of [['/bytes', ''], ['/items', ''], ['/waiting', ''], ['/half', '2\n']]) {
      begun = resolvers()
      read = resolvers()
      completed = logged('request completed')
      const asked = await ask(url, { 'content-type': 'application/jsonl' })
      asked.write('1\n')
      await begun.promise
      asked.write('2\n')
      asked.end()
      t.equal(await asked.status(), 200)
      t.equal(await asked.body(), 'done')
      t.equal(await read.promise, expected, url)
    }
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`a loop that begins behind stopReading() and the response finds the end: ${name}`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        await once(duplex, 'readable')
        t.equal(String(duplex.read(1)), 's')
        duplex.stopReading()
        duplex.end('done')
        await once(duplex, 'close')
        for await (const content of duplex) t.fail(String(content))
        read.resolve()
      })
    })
    const read = resolvers<void>()
    const asked = await ask('/')
    asked.write('some')
    t.equal(await asked.status(), 200)
    t.equal(await asked.body(), 'done')
    await read.promise
  })
}

t.test('a reader that listens anew for each chunk gets the last one, which comes with the end of the request', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, { duplex }) => {
      duplex.end('done')
      let text = ''
      const end = once(duplex, 'end')
      while (!duplex.readableEnded) {
        await Promise.race([once(duplex, 'readable'), end])
        for (let chunk; (chunk = duplex.read()) !== null; text += chunk);
      }
      read.resolve(text)
    })
  })
  const read = resolvers<string>()
  const wire = (await connect()).send(OPEN('/') + chunk('first '))
  t.match(await wire.response(), { body: 'done' })
  wire.send(chunk('second') + '0\r\n\r\n' + chunked('/', 'next'))
  t.equal(await read.promise, 'first second')
  t.match(await wire.response(), { body: 'done' }, 'the next request')
})

t.test('a process that has nothing else to do waits for a reader who seems to have left, and for no other', async (t) => {
  const printed = await run(`
    const { Writable } = require('node:stream')
    const { default: plugin } = require('./lib/index.ts')
    async function main () {
      const app = require('fastify')()
      await app.register(plugin, { drainTimeout: 20 })
      app.addHook('onResponse', async ({ url }) => { console.log(url) })
      app.post('/piped', { duplex: true }, (_request, { duplex }) => {
        duplex.pipe(new Writable({ write () {} }))
        duplex.end('done')
      })
      app.post('/paused', { duplex: true }, (_request, { duplex }) => {
        duplex.once('data', () => { duplex.pause() })
        duplex.end('done')
      })
      await app.inject({ method: 'POST', url: '/piped', payload: Buffer.alloc(1e6) })
      const call = await app.injectDuplex({ method: 'POST', url: '/paused' })
      call.write('some')
    }
    main()`)
  t.equal(printed, '/piped\n/paused\n')
})

t.test('a loop may wait for the client beside one that leaves', async (t) => {
  const drainTimeout = 20
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainTimeout } }, async (_request, { duplex }) => {
      const leaving = duplex[Symbol.asyncIterator]()
      leaving.next().then(() => taken.resolve())
      leaving.return!().catch(() => {})
      let text = ''
      const loop = async (): Promise<void> => { for await (const content of duplex) text += content }
      loop().then(() => received.resolve(text))
      duplex.end('done')
    })
  })
  const taken = resolvers<void>()
  const received = resolvers<string>()
  const wire = (await connect()).send(OPEN('/'))
  t.match(await wire.response(), { body: 'done' })
  await setTimeout(5 * drainTimeout)
  wire.send(chunk('left'))
  await taken.promise
  wire.send(chunk('content') + '0\r\n\r\n')
  t.equal(await received.promise, 'content')
})

t.test('a listener may take over from a loop that was not left', async (t) => {
  const drainTimeout = 20
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainTimeout } }, (_request, { duplex }) => {
      duplex[Symbol.asyncIterator]().next().then(({ value }) => {
        let all = String(value)
        duplex.on('data', (content) => { all += content }).on('end', () => received.resolve(all))
        duplex.end('done')
      })
    })
  })
  const received = resolvers<string>()
  const wire = (await connect()).send(OPEN('/') + chunk('some '))
  t.match(await wire.response(), { body: 'done' })
  await setTimeout(5 * drainTimeout)
  wire.send(chunk('content') + '0\r\n\r\n')
  t.equal(await received.promise, 'some content')
})

t.test('a loop that goes on behind its handler lasts as long as it takes something within drainTimeout', async (t) => {
  const drainTimeout = 30
  const readers: Record<string, (duplex: HttpDuplex, seen: (size: number) => void) => unknown> = {
    async loop (duplex, seen) { for await (const content of duplex) seen(content.length) },
    async 'loop-over-text' (duplex, seen) { for await (const content of duplex.setEncoding('hex')) seen(content.length / 2) },
    readable (duplex, seen) { duplex.on('readable', () => { for (let content; (content = duplex.read()) !== null;) seen(content.length) }) }
  }
  let wake = (): void => {}
  let sum = 0
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    for (const [name, read] of Object.entries(readers)) {
      app.post(`/${name}`, { duplex: { drainTimeout } }, (_request, { duplex }) => {
        read(duplex, (size) => { sum += size; wake() })
        duplex.end('done')
      })
    }
  })
  for (const name of Object.keys(readers)) {
    sum = 0
    const completed = logged('request completed')
    const wire = await connect()
    wire.send(OPEN(`/${name}`))
    let sent = 0
    for (const start = Date.now(); Date.now() - start < 5 * drainTimeout;) {
      const seen = new Promise<void>((resolve) => { wake = resolve })
      wire.send(chunk('some'))
      sent += 4
      await seen
    }
    wire.send('0\r\n\r\n')
    t.match(await wire.response(), { body: 'done' })
    await completed
    t.equal(sum, sent, name)
    t.match(await wire.request(chunked(`/${name}`, 'next')), { body: 'done' }, 'and the connection is kept')
  }
})

t.test('a reader that takes nothing has left, however the text grows', async (t) => {
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainTimeout: 20 } }, (_request, { duplex }) => {
      duplex.setEncoding('utf8').on('readable', () => {})
      duplex.end('done')
    })
  })
  const completed = logged('request completed')
  const wire = await connect()
  wire.send(OPEN('/') + chunk('some'))
  t.equal((await wire.head()).statusCode, 200)
  const dribble = setInterval(() => { wire.send(chunk('\xc3\xa9')) }, 5)
  t.teardown(() => clearInterval(dribble))
  await completed
})

t.test('who begins to read while the handler runs may wait for the client', async (t) => {
  const drainTimeout = 20
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainTimeout } }, async (_request, { duplex }) => {
      t.ok(duplex.requestBody)
      duplex.end('done')
      await setTimeout(drainTimeout / 4)
      let size = 0
      for await (const content of duplex) size += content.length
      read.resolve(size)
    })
  })
  const read = resolvers<number>()
  const wire = await connect()
  wire.send(OPEN('/'))
  t.match(await wire.response(), { body: 'done' })
  await setTimeout(3 * drainTimeout)
  wire.send(chunk('some') + '0\r\n\r\n')
  t.equal(await read.promise, 4)
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: what a listener for 'data' throws while a loop waits rejects the loop`, async (t) => {
    const errors: unknown[] = []
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { receive: jsonl({}) } }, async (request, { duplex }) => {
        duplex.once('data', () => { throw new Error('mistake') })
        try {
          for await (const item of request.headers.items === undefined ? duplex : duplex.items) duplex.write(String(item))
        } catch (error) {
          errors.push(error)
          throw error
        }
      })
    })
    for (const fields of [{}, { items: 'yes' }] as Record<string, string>[]) {
      const asked = await ask('/', { ...fields, 'content-type': 'application/jsonl' })
      await immediate()
      asked.write('1\n')
      t.equal(await asked.status(), 500)
      t.match(errors.splice(0), [{ message: 'mistake' }])
      asked.end()
      await asked.body()
    }
  })
}

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

/** Encodings whose decoder keeps bytes until the next ones arrive. */
const ENCODINGS = ['utf8', 'utf16le', 'base64', 'base64url'] as const

for (const transport of TRANSPORTS) {
  t.test(`text whose characters are cut between reads, over ${transport}`, async (t) => {
    let stream: HttpDuplex | null = null
    const { connect } = await serve(t, transport, (app) => {
      app.post('/:encoding/:how', { duplex: true }, async (request, { duplex }) => {
        const { encoding, how } = request.params as { encoding: BufferEncoding, how: string }
        const pushed: Buffer[] = []
        const { push } = duplex
        if (how === 'kept') duplex.push = function (chunk, encoding) { pushed.push(chunk); return push.call(this, chunk, encoding) }
        let whole = ''
        duplex.flushHeaders()
        stream = duplex
        const source = how === 'half' ? duplex.requestBody as Readable : duplex
        source.setEncoding(encoding)
        if (how === 'events') {
          source.on('readable', () => { for (let text; (text = source.read()) !== null;) whole += text })
          await once(source, 'end')
        } else {
          for await (const text of source) whole += text
        }
        const bytes = how === 'kept' ? Buffer.concat(pushed.filter((chunk) => chunk !== null)) : Buffer.from(whole, encoding)
        duplex.end(bytes.toString('hex'))
      })
    })
    const wire = await connect()
    const bytes = Buffer.from('a€b€€\u{1f600}c€d', 'utf8')
    for (const encoding of ENCODINGS) {
      for (const how of ['read', 'kept', 'half', 'events']) {
        wire.send(OPEN(`/${encoding}/${how}`))
        await wire.head()
        for (const [i, byte] of bytes.entries()) {
          wire.send(chunk(String.fromCharCode(byte)))
          while (stream!.bytesRead === i) await immediate()
        }
        wire.send('0\r\n\r\n')
        t.equal(await wire.body(), bytes.toString('hex'), `${encoding}, ${how}`)
      }
    }
  })
}

/** Messages that arrive one by one. `€` is cut between the second and the third. */
const MESSAGES = ['one', '\xe2\x82', '\xac', 'four', 'five']

for (const transport of TRANSPORTS) {
  t.test(`messages, each to a loop that waits, over ${transport}`, async (t) => {
    const kept: Buffer[] = []
    const pushed: string[] = []
    const { connect } = await serve(t, transport, (app) => {
      const loop = (path: string, prepare: (duplex: HttpDuplex) => void): void => {
        app.post(path, { duplex: true }, async (_request, { duplex }) => {
          prepare(duplex)
          duplex.flushHeaders()
          for await (const chunk of duplex) {
            if (typeof chunk !== 'string') kept.push(chunk)
            duplex.write(`${chunk.length} `)
          }
          duplex.end('end')
        })
      }
      loop('/bytes', () => {})
      loop('/text', (duplex) => { duplex.setEncoding('utf8') })
      loop('/pushed', (duplex) => {
        const { push } = duplex
        duplex.push = function (chunk, encoding) {
          if (chunk !== null) pushed.push(String(chunk))
          return push.call(this, chunk, encoding)
        }
      })
    })
    const wire = await connect()
    const bytes = ['3 ', '2 ', '1 ', '4 ', '4 ']
    for (const [path, answers] of [['/bytes', bytes], ['/text', ['3 ', '', '1 ', '4 ', '4 ']], ['/pushed', bytes]] as const) {
      kept.length = 0
      wire.send(OPEN(path))
      await wire.head()
      for (const [i, message] of MESSAGES.entries()) {
        wire.send(chunk(message))
        if (answers[i] !== '') t.equal(await wire.content(), answers[i])
      }
      wire.send('0\r\n\r\n')
      t.equal(await wire.body(), 'end')
      if (path !== '/text') t.equal(Buffer.concat(kept).toString('latin1'), MESSAGES.join(''), 'chunks that are kept stay as they are')
    }
    t.equal(pushed.length, MESSAGES.length, 'code that watches the stream sees all of them')
  })
}

for (const transport of TRANSPORTS) {
  t.test(`a listener for 'readable' is told of what a loop has put back before, over ${transport}`, async (t) => {
    const { connect } = await serve(t, transport, (app) => {
      app.post('/', { duplex: true }, async (_request, { duplex }) => {
        duplex.flushHeaders()
        const chunks = duplex[Symbol.asyncIterator]()
        duplex.unshift((await chunks.next()).value)
        await chunks.return!()
        let text = ''
        duplex.on('readable', () => { for (let chunk; (chunk = duplex.read()) !== null;) text += chunk })
        duplex.on('end', () => { duplex.end(text) })
      })
    })
    const wire = await connect()
    wire.send(OPEN('/'))
    await wire.head()
    wire.send(`${chunk('abcdef')}0\r\n\r\n`)
    t.equal(await wire.body(), 'abcdef')
  })
}
