// How a handler answers and fails. Before the head an answer is an ordinary Fastify answer; after it an error cuts the
// response off.

import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { KINDS, serveKind } from '../support/kinds.ts'
import { CUT_OFF, GET, OPEN, UPGRADE, chunk, chunked, resolvers, serve, LEFT } from '../support/wire.ts'

async function echo (request: FastifyRequest, reply: FastifyReply): Promise<void> {
  reply.type(request.headers['content-type'] ?? 'application/octet-stream')
  await pipeline(reply.duplex, reply.duplex)
}

t.test('until the first byte, answers are ordinary answers', async (t) => {
  const { app, connect, log } = await serve(t, 'tcp', (app) => {
    app.setErrorHandler((error: Error, request, reply) => reply.code(418).send(`handled ${error.message}`))
    const route = (url: string, handler: (request: FastifyRequest, reply: FastifyReply) => unknown): void => {
      app.post(url, { duplex: true }, handler)
    }
    route('/throw', () => { throw new Error('thrown') })
    route('/reject', async () => { throw new Error('rejected') })
    route('/return', async () => ({ a: 1 }))
    route('/return-now', () => 'now')
    route('/nothing', async () => {})
    route('/send', (request, reply) => { reply.code(403).send('no') })
    route('/return-reply', async (request, reply) => reply.code(202).send('yes'))
    route('/read-then-return', async (request, reply) => {
      let size = 0
      for await (const chunk of reply.duplex) size += chunk.length
      return { size }
    })
    route('/read-then-throw', async (request, reply) => {
      const [chunk] = await once(reply.duplex, 'data')
      throw new Error(`after ${chunk}`)
    })
    route('/generator-throws', async function * () { throw new Error('generated') })
    route('/destroy', async (request, reply) => { reply.duplex.destroy(new Error('destroyed')); throw new Error('rejected') })
    route('/destroy-only', (request, reply) => { reply.duplex.destroy() })
    route('/destroy-with', (request, reply) => { reply.duplex.destroy(new Error('why')) })
    app.post('/hook', { duplex: true, preHandler: (request, reply, done) => { reply.duplex.destroy(new Error('in a hook')); setImmediate(done) } }, () => {})
    app.post('/own', { duplex: true, errorHandler: (error, request, reply) => { reply.send(`own ${error.message}`) } }, () => { throw new Error('thrown') })
    app.post('/limited', { duplex: true, onRequest: async () => { throw new Error('unauthorized') } }, echo)
  })
  const expected: [string, number, string][] = [
    ['/throw', 418, 'handled thrown'],
    ['/reject', 418, 'handled rejected'],
    ['/return', 200, '{"a":1}'],
    ['/return-now', 200, 'now'],
    ['/nothing', 200, ''],
    ['/send', 403, 'no'],
    ['/return-reply', 202, 'yes'],
    ['/read-then-return', 200, '{"size":11}'],
    ['/read-then-throw', 418, 'handled after hello'],
    ['/generator-throws', 418, 'handled generated'],
    ['/destroy', 418, 'handled rejected'],
    ['/destroy-only', 418, 'handled The exchange was destroyed before the response ended'],
    ['/destroy-with', 418, 'handled why'],
    ['/hook', 418, 'handled in a hook'],
    ['/own', 200, 'own thrown'],
    ['/limited', 418, 'handled unauthorized']
  ]
  const wire = await connect()
  for (const [url, statusCode, body] of expected) {
    // Only the first chunk is sent at first: the rest of the body follows after the answer.
    wire.send(OPEN(url) + chunk('hello'))
    if (url === '/read-then-return') wire.send(chunk(' world') + '0\r\n\r\n')
    t.match(await wire.response(), { statusCode, body, fields: { connection: 'keep-alive' } }, url)
    if (url !== '/read-then-return') wire.send(chunk(' world') + '0\r\n\r\n')
  }
  const answered = log.filter((line) => line.msg === 'request completed').map((line) => line.res!.statusCode)
  t.strictSame(answered, expected.map(([, statusCode]) => statusCode), 'each is logged once, with its status')

  for (const [url, statusCode, payload] of expected) {
    const response = await app.inject({ method: 'POST', url, payload: Readable.from(['hello', ' world']) })
    t.match(response, { statusCode, payload }, `${url} injected`)
  }
})

t.test('handlers of every kind', async (t) => {
  const { connect, log } = await serve(t, 'tcp', (app) => {
    app.post('/upper', { duplex: true }, async function * (request, reply) {
      for await (const chunk of reply.duplex) yield chunk.toString().toUpperCase()
    })
    app.post('/promised-iterable', { duplex: true }, async (request, reply) => Readable.from(['a', 'b']))
    app.post('/now', { duplex: true }, (request, reply) => reply.duplex.end('now'))
    app.post('/async-end', { duplex: true }, async (request, reply) => reply.duplex.end('then'))
    app.post('/async-write', { duplex: true }, async (request, reply) => {
      reply.duplex.write('a')
      setImmediate(() => reply.duplex.end('b'))
    })
    app.post('/return-reply', { duplex: true }, async (request, reply) => {
      reply.duplex.end('x')
      return reply
    })
    app.post('/return-reply-now', { duplex: true }, (request, reply) => {
      reply.duplex.end('x')
      return reply
    })
    app.post('/callbacks', { duplex: true }, (request, reply) => {
      const { duplex } = reply
      duplex.on('data', (chunk) => { duplex.write(chunk) })
      duplex.on('end', () => { duplex.end() })
    })
    app.post('/break', { duplex: true }, async (request, reply) => {
      for await (const chunk of reply.duplex) {
        reply.duplex.write(chunk)
        if (chunk.length > 0) break
      }
      reply.duplex.end(() => {})
    })
    app.post('/return-duplex', { duplex: true }, async (request, reply) => reply.duplex.end())
  })
  const wire = await connect()
  for (const [url, body] of [['/upper', 'ABC'], ['/promised-iterable', 'ab'], ['/now', 'now'], ['/async-end', 'then'], ['/async-write', 'ab'], ['/return-reply', 'x'], ['/return-reply-now', 'x'], ['/callbacks', 'abc'], ['/break', 'abc'], ['/return-duplex', '']]) {
    t.match(await wire.request(chunked(url, 'abc')), { statusCode: 200, body }, url)
  }
  t.equal(log.filter((line) => line.level > 30).length, 0, 'and nothing to warn about')
})

t.test('a generator is cancelled when nothing more can be written', async (t) => {
  const chunk = Buffer.alloc(65_536, 'x')
  const left: string[] = []
  let done = (): void => {}
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.get('/endless', { duplex: true }, async function * () {
      try {
        while (true) yield chunk
      } finally {
        left.push('endless')
        done()
      }
    })
    app.get('/answered', { duplex: true }, async function * (request, reply) {
      const closed = once(reply.duplex, 'close')
      reply.send('by somebody else')
      await closed
      try {
        while (true) yield 'late'
      } finally {
        left.push('answered')
      }
    })
  })
  const wire = await connect()
  const error = logged('Promise errored, but reply.sent = true was set')
  t.equal((await wire.request(GET('/answered'))).body, 'by somebody else')
  t.match(await error, { err: { code: 'FST_ERR_DUPLEX_HEAD_SENT' } })
  wire.send(GET('/endless'))
  await wire.head()
  wire.socket.pause()
  const gone = new Promise<void>((resolve) => { done = resolve })
  wire.socket.destroy()
  await gone
  t.strictSame(left, ['answered', 'endless'])
})

t.test('malformed requests, before the head', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.setErrorHandler((error: Error & { code: string, statusCode: number }, request, reply) => reply.code(error.statusCode).send(error.code))
    app.post('/', { duplex: true }, async (request, reply) => {
      let body = ''
      for await (const chunk of reply.duplex) body += chunk
      return body
    })
    app.post('/callbacks', { duplex: true }, (request, reply) => {
      reply.duplex.on('data', () => {})
    })
    app.post('/limit', { duplex: true, bodyLimit: 4 }, async (request, reply) => {
      let body = ''
      for await (const chunk of reply.duplex) body += chunk
      return body
    })
  })
  const head = (fields: string, version = '1.1'): string => `POST / HTTP/${version}\r\nHost: a\r\n${fields}\r\n\r\n`
  const cases: [string, number, string][] = [
    [head('Transfer-Encoding: gzip, chunked'), 501, 'TRANSFER_CODING'],
    [head('Transfer-Encoding: \xe9, chunked'), 400, 'FRAMING'],
    [head('Transfer-Encoding: chunked', '1.0'), 400, 'FRAMING'],
    [head('Content-Length: 9007199254740992'), 400, 'FRAMING'],
    [OPEN('/') + '5\nhello\r\n0\r\n\r\n', 400, 'CHUNK'],
    [OPEN('/') + '5\r\nhello\r\n0\r\nhost: a\r\n\r\n', 400, 'TRAILER'],
    [OPEN('/callbacks') + chunk('hello') + 'x', 400, 'CHUNK'],
    [OPEN('/limit') + chunk('hello'), 413, 'BODY_LIMIT'],
    ['POST /limit HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n', 413, 'BODY_LIMIT']
  ]
  for (const [bytes, statusCode, code] of cases) {
    const wire = await connect()
    t.match(await wire.request(bytes), { statusCode, body: `FST_ERR_DUPLEX_${code}` }, JSON.stringify(bytes))
    if (statusCode === 413) continue
    // After a message whose framing is invalid, nothing more is read as a request.
    wire.send(GET('/'))
    await wire.ended
    t.equal(wire.pending, 0)
  }
  const wire = await connect()
  t.match(await wire.request(chunked('/limit', 'four')), { statusCode: 200, body: 'four' })
  wire.socket.end(OPEN('/') + chunk('hello').slice(0, -3))
  t.match(await wire.response(), { statusCode: 400, body: 'FST_ERR_DUPLEX_TRUNCATED' }, 'a client that ends its side too early')
})

t.test('requests that turn out malformed after the head', async (t) => {
  const errors: unknown[] = []
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, echo)
    app.post('/callbacks', { duplex: true }, (request, reply) => {
      reply.duplex.on('error', (error) => errors.push(error))
      reply.duplex.pipe(reply.duplex)
    })
    app.post('/limit', { duplex: { bodyLimit: 4 } }, echo)
  })
  const cases: [string, string, string][] = [
    ['/', '5\nhello', 'FST_ERR_DUPLEX_CHUNK'],
    ['/callbacks', 'hello', 'FST_ERR_DUPLEX_CHUNK'],
    ['/', '0\r\nhost: a\r\n\r\n', 'FST_ERR_DUPLEX_TRAILER'],
    ['/limit', chunk('hello'), 'FST_ERR_DUPLEX_BODY_LIMIT']
  ]
  for (const [url, bytes, code] of cases) {
    const wire = await connect()
    wire.send(OPEN(url) + chunk('ok'))
    t.equal((await wire.head()).statusCode, 200)
    t.equal(await wire.content(), 'ok')
    const line = logged('request errored')
    wire.send(bytes + GET(url))
    await t.rejects(wire.body(), CUT_OFF, 'cut off without a last chunk')
    t.match(await line, { level: 50, err: { code }, res: { statusCode: 200 } }, 'the log says why')
  }
  t.match(errors, [{ code: 'FST_ERR_DUPLEX_CHUNK' }])
})

t.test('handlers that fail after the head', async (t) => {
  const received = resolvers()
  const hooked: string[] = []
  const { connect, logged, log } = await serve(t, 'tcp', (app) => {
    app.addHook('onError', (request, reply, error, done) => { hooked.push(`callback ${error.message}`); done() })
    app.addHook('onError', async (request, reply, error) => { hooked.push(`async ${error.message}`) })
    app.addHook('onError', () => { throw new Error('of no consequence') })
    app.addHook('onResponse', (request, reply, done) => { hooked.push('response'); done() })
    app.post('/async', { duplex: true }, async (request, reply) => {
      reply.duplex.flushHeaders()
      throw new Error('async')
    })
    app.post('/now', { duplex: true }, (request, reply) => {
      reply.duplex.flushHeaders()
      throw new Error('now')
    })
    app.post('/generator', { duplex: true }, async function * () {
      yield 'a'
      await immediate()
      throw new Error('generator')
    })
    app.post('/destroy', { duplex: true }, (request, reply) => {
      reply.duplex.write('a', () => reply.duplex.destroy())
    })
    app.post('/after', { duplex: true }, async (request, reply) => {
      await once(reply.duplex.end('done'), 'finish')
      throw new Error('after')
    })
    app.get('/until-close', { duplex: true }, async function * () {
      yield 'a'
      await received.promise
      throw new Error('until close')
    })
    app.post('/write-after-end', { duplex: true }, (request, reply) => {
      reply.duplex.flushHeaders()
      reply.duplex.end('a')
      reply.duplex.write('b')
    })
    app.post('/type', { duplex: true }, (request, reply) => {
      reply.duplex.flushHeaders()
      reply.duplex.write(5 as never)
    })
  })
  for (const message of ['async', 'now', 'generator', 'destroy']) {
    const wire = await connect()
    const line = logged('request errored')
    await t.rejects(wire.request(OPEN(`/${message}`)), CUT_OFF, message)
    t.match(await line, { err: message === 'destroy' ? { code: 'FST_ERR_DUPLEX_DESTROYED' } : { message } })
  }
  t.strictSame(hooked, ['async', 'now', 'generator', 'The exchange was destroyed before the response ended'].flatMap((message) => [`callback ${message}`, `async ${message}`, 'response']))
  const wire = await connect()
  const after = logged('duplex handler failed after its response')
  t.match(await wire.request(chunked('/after')), { body: 'done' })
  t.match(await after, { level: 50, err: { message: 'after' } })
  for (const [url, code] of [['/type', 'FST_ERR_DUPLEX_CONTENT'], ['/write-after-end', 'ERR_STREAM_WRITE_AFTER_END']]) {
    const line = logged('request errored')
    const wrong = await connect()
    wrong.send(chunked(url))
    t.match(await line, { err: { code } }, 'an error of the stream itself')
    await wrong.ended
  }
  const old = await connect()
  old.send('GET /until-close HTTP/1.0\r\n\r\n')
  await old.head()
  received.resolve() // not in one turn: libuv would take a reset right behind data for an end
  const [error] = await once(old.socket, 'error')
  t.equal(error.code, 'ECONNRESET', 'a reset, where a FIN would be the end of the body')
  t.equal(log.some((line) => line.level >= 60), false)
})

/** An onResponse hook that uses the request, and an onSend hook that takes a turn. */
function addHooks (app: FastifyInstance): void {
  app.addHook('onResponse', async (request) => {
    request.signal.addEventListener('abort', () => {})
    request.raw.on('close', () => {})
  })
  app.addHook('onSend', async () => { await immediate() })
}

t.test('a client that leaves before the handler opens reply.duplex', async (t) => {
  const entered = resolvers()
  const left = resolvers()
  const piped = resolvers<{ code: string }>()
  const done = resolvers()
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    addHooks(app)
    app.post('/', { duplex: true }, async (_request, reply) => {
      entered.resolve()
      await left.promise
      await pipeline(reply.duplex, reply.duplex).catch(piped.resolve)
      done.resolve()
      throw new Error('something else')
    })
  })
  const wire = await connect()
  const errored = logged(LEFT)
  wire.send(OPEN('/'))
  await entered.promise
  wire.socket.resetAndDestroy()
  await errored
  left.resolve()
  // Node 24 has a separate code for a pipeline from a destroyed stream.
  t.match(await piped.promise, { code: /^(FST_ERR_DUPLEX_ABORTED|ERR_STREAM_UNABLE_TO_PIPE)$/ })
  await done.promise
})

t.test('reply.duplex in an onResponse hook, after an answer', async (t) => {
  const seen: boolean[] = []
  const { connect } = await serve(t, 'tcp', (app) => {
    addHooks(app)
    app.post('/', { duplex: true, onResponse: async (_request, reply) => { seen.push(reply.duplex.destroyed) } }, (_request, reply) => { reply.code(403).send('no') })
  })
  const wire = await connect()
  t.match(await wire.request(chunked('/')), { statusCode: 403 })
  await wire.request(GET('/none')) // the hook has run when the next request is answered
  t.strictSame(seen, [true])
})

t.test('errors before the first byte are answered, whatever their source', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    addHooks(app)
    const route = (url: string, handler: (request: FastifyRequest, reply: FastifyReply) => unknown): void => {
      app.post(url, { duplex: true }, handler)
    }
    route('/destroy', async (_request, reply) => { reply.duplex.destroy() })
    route('/flush-after-destroy', async (_request, reply) => {
      reply.duplex.destroy()
      reply.duplex.flushHeaders()
    })
    route('/flush-after-error', async (_request, reply) => {
      reply.duplex.destroy(new Error('why'))
      reply.duplex.flushHeaders()
    })
    route('/yield-object', async function * () { yield { a: 1 } })
    route('/write-number', async (_request, reply) => { reply.duplex.write(1 as never) })
    route('/two-answers', (_request, reply) => {
      reply.send('ordinary')
      reply.duplex.end('duplex')
    })
    route('/return-reply', async (_request, reply) => {
      reply.duplex.on('data', () => {})
      return reply
    })
    route('/own-answer', (_request, reply) => {
      reply.duplex.on('error', () => reply.code(422).send('mine'))
      reply.duplex.resume()
    })
  })
  const wire = await connect()
  t.match(await wire.request(chunked('/destroy')), { statusCode: 500, body: /DESTROYED/ })
  t.match(await wire.request(chunked('/flush-after-destroy')), { statusCode: 500, body: /DESTROYED/ })
  t.match(await wire.request(chunked('/flush-after-error')), { statusCode: 500, body: /why/ })
  t.match(await wire.request(chunked('/yield-object')), { statusCode: 500, body: /FST_ERR_DUPLEX_CONTENT/ })
  t.match(await wire.request(chunked('/write-number')), { statusCode: 500, body: /FST_ERR_DUPLEX_CONTENT/ })
  t.match(await wire.request(chunked('/two-answers')), { statusCode: 200, body: 'ordinary' }, 'the first answer is the answer')
  t.match(await (await connect()).request(OPEN('/return-reply') + 'x'), { statusCode: 400, body: /CHUNK/ })
  t.match(await (await connect()).request(OPEN('/own-answer') + 'x'), { statusCode: 422, body: 'mine' })
  t.equal(app.server.listening, true)
})

t.test('a handler that answers after the plugin has answered', async (t) => {
  for (const [name, kind] of Object.entries(KINDS).filter(([, { http2 }]) => !http2)) {
    for (const handled of ['by Fastify', 'by the app', 'by an app that fails'] as const) {
      for (const slow of ['onError', 'onSend'] as const) {
        for (const style of ['callback', 'promise', 'rejects'] as const) {
          await t.test(`${name}: ${style} handler, slow ${slow} hook, answered ${handled}`, async (t) => {
            const hooked = resolvers()
            const answered = resolvers()
            const { ask } = await serveKind(t, kind, (app, routeOptions) => {
              app.addHook(slow, ((...args: any[]) => {
                hooked.resolve()
                const done = args.at(-1) as (error?: null, payload?: unknown) => void
                answered.promise.then(() => slow === 'onSend' ? done(null, args[2]) : done())
              }) as any)
              if (handled !== 'by Fastify') {
                app.setErrorHandler((_error, _request, reply) => {
                  if (handled === 'by an app that fails') throw Object.assign(new Error('fails'), { statusCode: 400 })
                  reply.code(400).send('by the app')
                })
              }
              app.post('/', routeOptions, async () => 'x')
              app.post('/late', { ...routeOptions, duplex: true }, (_request, reply) => {
                reply.duplex.resume()
                const late = hooked.promise.then(() => {
                  setImmediate(answered.resolve)
                  if (style === 'rejects') throw new Error('late')
                  if (style === 'promise') return 'late'
                  t.doesNotThrow(() => reply.code(403).send('late'))
                  return undefined
                })
                return style === 'callback' ? undefined : late
              })
            })
            const late = await ask('/late')
            late.nonsense()
            t.match(await late.status(), style === 'callback' && slow === 'onError' ? 400 : /40[03]/)
            t.notMatch(await late.body(), 'late')
          })
        }
      }
    }
  }
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: the client leaves while the hooks of a failed answer run`, async (t) => {
    for (const style of ['promise', 'callback'] as const) {
      const running = resolvers()
      const over = resolvers()
      const goOn = resolvers()
      let responses = 0
      const { ask } = await serveKind(t, kind, (app, routeOptions) => {
        app.addHook('onSend', (_request, _reply, _payload, done) => { done(new Error('of a hook')) })
        app.addHook('onError', (_request, _reply, _error, done) => {
          running.resolve()
          goOn.promise.then(() => done())
        })
        app.addHook('onResponse', async () => {
          responses++
          over.resolve()
        })
        app.setErrorHandler(async (_error, _request, reply) => {
          await immediate()
          return reply.code(418).send('own')
        })
        app.post('/', {
          ...routeOptions,
          duplex: true,
          ...(style === 'promise'
            ? { handler: async (_request: FastifyRequest, reply: FastifyReply) => reply.code(403).send('no') }
            : { handler: (_request: FastifyRequest, reply: FastifyReply) => { reply.code(403).send('no') } })
        })
      })
      const client = await ask('/')
      client.write('x')
      await running.promise
      client.leave()
      await over.promise
      for (let turns = 0; turns < 5; turns++) await immediate()
      goOn.resolve()
      for (let turns = 0; turns < 5; turns++) await immediate()
      t.equal(responses, 1, style)
    }
  })
}

/** Handlers whose response somebody else ends, too. */
const BOTH_END: Record<string, (reply: FastifyReply) => void> = {
  'before the end': ({ duplex, raw }) => {
    duplex.write('x')
    raw.end()
    duplex.end()
  },
  'before an end in a later turn': ({ duplex, raw }) => {
    duplex.write('x')
    raw.end()
    process.nextTick(() => duplex.end())
  },
  'behind the end': ({ duplex, raw }) => {
    duplex.end('x')
    raw.end()
  },
  'in a later turn': ({ duplex, raw }) => {
    duplex.end('x')
    process.nextTick(() => raw.end())
  }
}

for (const [when, end] of Object.entries(BOTH_END)) {
  t.test(`a response that somebody else ends, ${when}`, async (t) => {
    const { connect } = await serve(t, 'tcp', (app) => {
      app.get('/', { duplex: true }, (request, reply) => { end(reply) })
      app.get('/tunnel', { duplex: true }, (request, reply) => {
        reply.code(101).header('upgrade', 'x').duplex.flushHeaders()
        reply.raw.end()
        t.throws(() => reply.duplex.detach(), { code: 'FST_ERR_DUPLEX_DETACH' })
      })
    })
    const wire = await connect()
    wire.send(GET('/'))
    // What was ended through our writer in the same turn is whole; what other code may have ended is cut off.
    if (when === 'before an end in a later turn') await t.rejects(wire.response(), CUT_OFF)
    else t.match(await wire.response(), { statusCode: 200, body: 'x' })
    if (when !== 'in a later turn') await wire.ended
    const tunnel = await connect()
    tunnel.send(UPGRADE('/tunnel'))
    t.equal((await tunnel.head()).statusCode, 101)
    await tunnel.ended
  })
}

t.test('a head that is taken back a few microtasks around the return of its handler', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/:steps', { duplex: true }, async (request, { duplex }) => {
      duplex.write('never sent')
      const failLater = async (): Promise<void> => {
        for (let left = Number((request.params as { steps: string }).steps); left > 0; left--) await null
        duplex.destroy(new Error('just behind'))
      }
      failLater().catch(() => {})
    })
  })
  const wire = await connect()
  for (let steps = 0; steps < 10; steps++) {
    wire.send(GET(`/${steps}`))
    const { statusCode, body } = await wire.response()
    t.equal(statusCode, 500, `${steps}`)
    t.match(body, 'just behind', `${steps}`)
  }
})
