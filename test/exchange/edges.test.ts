// The edges of an exchange, through live connections of each kind: mistakes of handlers, clients that leave, an app that closes,
// failures before the first byte, and other code's hand on the response. The table behind it: states.test.ts.

import { once } from 'node:events'
import http2 from 'node:http2'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { type Asked, KINDS, serveKind } from '../support/kinds.ts'
import { CUT_OFF, GET, LEFT, OPEN, chunk, chunked, resolvers, serve } from '../support/wire.ts'

/** The body of a response, however the kind reads it. */
async function bodyOf (client: Asked): Promise<string> {
  await client.status()
  return client.body()
}

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

// Mistakes of handlers

const MISTAKES: Record<string, { handler: Handler, code: string, isAnswered: boolean }> = {
  'a value behind the head, in one turn': {
    handler: async (_request, { duplex }) => { duplex.write('some'); return { a: 'value' } },
    code: 'FST_ERR_DUPLEX_SENT_LATE',
    isAnswered: true
  },
  'a value behind the head': {
    handler: async (_request, { duplex }) => { duplex.write('some'); await immediate(); return { a: 'value' } },
    code: 'FST_ERR_DUPLEX_SENT_LATE',
    isAnswered: false
  },
  'a value behind the head, without a promise': {
    handler: (_request, { duplex }) => { duplex.flushHeaders(); return 'a value' },
    code: 'FST_ERR_DUPLEX_SENT_LATE',
    isAnswered: false
  },
  'reply.send() behind the head': {
    handler: async (_request, reply) => { reply.duplex.write('some'); await immediate(); reply.send('more') },
    code: 'FST_ERR_DUPLEX_SENT_LATE',
    isAnswered: false
  },
  'reply.send() behind the head, after the handler': {
    handler: (_request, reply) => { reply.duplex.write('some'); setImmediate(() => reply.send('more')) },
    code: 'FST_ERR_DUPLEX_SENT_LATE',
    isAnswered: false
  },
  'reply.hijack(), then a write': {
    handler: async (_request, reply) => { reply.hijack(); reply.duplex.end('never') },
    code: 'FST_ERR_DUPLEX_HIJACKED',
    isAnswered: false
  },
  'a head, and no end': {
    handler: async (_request, { duplex }) => { duplex.write('some'); await immediate(); return duplex },
    code: 'FST_ERR_DUPLEX_NOT_ENDED',
    isAnswered: false
  }
}

for (const [name, kind] of Object.entries(KINDS)) {
  for (const [mistake, { handler, code, isAnswered }] of Object.entries(MISTAKES)) {
    t.test(`${name}: ${mistake}`, async (t) => {
      const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
        app.post('/', { ...routeOptions, duplex: code.endsWith('NOT_ENDED') ? { idleTimeout: 20 } : true, handler: handler as () => void })
      })
      const errored = logged('request errored')
      const client = await ask('/')
      client.end()
      if (isAnswered) {
        t.equal(await client.status(), 500)
        t.match(await client.body(), code)
      } else {
        t.match(await errored, { err: { code } })
        await t.rejects(bodyOf(client))
      }
    })
  }

  t.test(`${name}: reply.send() behind the head is a warning, if the handler ends the response`, async (t) => {
    const { ask, log } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, reply) => {
        reply.duplex.write('some')
        await immediate()
        reply.send('other')
        reply.duplex.end(' more')
      })
    })
    const client = await ask('/')
    client.end()
    t.equal(await bodyOf(client), 'some more')
    t.match(log.filter(({ level }) => level > 30), [{ level: 40, err: { code: 'FST_ERR_DUPLEX_SENT_LATE' } }])
  })
}

// Before the first byte

const UNSENT: Record<string, { handler: Handler, code: string }> = {
  'a generator that throws': {
    handler: async function * () { yield 'part'; throw Object.assign(new Error('oops'), { code: 'OOPS' }) } as unknown as Handler,
    code: 'OOPS'
  },
  'a handler that throws': {
    handler: async (_request, { duplex }) => { duplex.write('part'); throw Object.assign(new Error('oops'), { code: 'OOPS' }) },
    code: 'OOPS'
  },
  'a handler without a promise that throws': {
    handler: (_request, { duplex }) => { duplex.end('all'); throw Object.assign(new Error('oops'), { code: 'OOPS' }) },
    code: 'OOPS'
  },
  'a wrong type behind content': {
    handler: async (_request, { duplex }) => { duplex.write('part'); duplex.write(5 as never) },
    code: 'FST_ERR_DUPLEX_CONTENT'
  },
  'a body shorter than its content-length': {
    handler: (_request, reply) => { reply.header('content-length', 5).duplex.end('four') },
    code: 'FST_ERR_DUPLEX_LENGTH'
  },
  'destroy()': {
    handler: (_request, { duplex }) => { duplex.write('part'); duplex.destroy() },
    code: 'FST_ERR_DUPLEX_DESTROYED'
  }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: what fails in the turn in which it was written was never sent`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.setErrorHandler((error: Error & { code: string }, _request, reply) => reply.code(500).header('content-length', undefined).send(error.code))
      for (const [i, { handler }] of Object.values(UNSENT).entries()) app.post(`/${i}`, { ...routeOptions, duplex: true, handler: handler as () => void })
      app.post('/next', { ...routeOptions, duplex: true }, async function * () { yield 'next' })
    })
    for (const [i, [what, { code }]] of Object.entries(UNSENT).entries()) {
      const client = await ask(`/${i}`)
      client.end()
      t.equal(await client.status(), 500, what)
      t.equal(await client.body(), code, what)
      const next = await ask('/next')
      next.end()
      t.equal(await bodyOf(next), 'next', 'the connection is kept')
    }
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: a request that turns out malformed while an early hook reads it`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      const onRequest = async (_request: FastifyRequest, { duplex }: FastifyReply): Promise<void> => {
        duplex.resume()
        await new Promise((resolve) => { duplex.once('close', resolve) })
        for (let turns = 0; turns < 5; turns++) await immediate() // meanwhile it is answered
      }
      app.post('/', { ...routeOptions, duplex: true, onRequest }, async () => { if (name === 'raw') t.fail('does not run') })
      app.post('/next', { ...routeOptions, duplex: true }, async function * () { yield 'next' })
    })
    const client = await ask('/')
    client.nonsense()
    if (name === 'raw') t.equal(await client.status(), 400)
    else if (kind.http2 === true) t.equal(await (await ask('/next')).status(), 200)
  })
}

// Leaving

for (const transport of ['tcp', 'tls', 'unix'] as const) {
  for (const [when, body] of [['without a body', 'Content-Length: 0\r\n\r\n'], ['behind a body that nobody reads', 'Content-Length: 5\r\n\r\nhello']]) {
    t.test(`a client that ends its side ${when}, over ${transport}`, async (t) => {
      const left = resolvers<unknown>()
      const { connect } = await serve(t, transport, (app) => {
        app.post('/', { duplex: true }, async (request, reply) => {
          await once(request.signal, 'abort')
          left.resolve(request.signal.reason)
          reply.duplex.end('still written')
        })
      })
      const wire = await connect()
      wire.socket.end(`POST / HTTP/1.1\r\nHost: a\r\n${body}`)
      t.match(await left.promise, { code: 'FST_ERR_DUPLEX_ABORTED' })
      t.match(await wire.response(), { statusCode: 200, body: 'still written' })
      await wire.ended
    })
  }

  t.test(`allowHalfOpen: false takes the end of the client's side for its leaving, over ${transport}`, async (t) => {
    const { connect, logged } = await serve(t, transport, (app) => {
      app.post('/', { duplex: { allowHalfOpen: false } }, async (request, reply) => {
        reply.duplex.flushHeaders()
        await once(request.signal, 'abort')
      })
    })
    const wire = await connect()
    const left = logged(LEFT)
    wire.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n')
    await wire.head()
    wire.socket.end()
    await left
    await t.rejects(wire.body(), CUT_OFF)
  })

  t.test(`the client leaves within a body that nobody reads, over ${transport}`, async (t) => {
    const aborted = resolvers<unknown>()
    const { connect, logged } = await serve(t, transport, (app) => {
      app.post('/', { duplex: true }, async (request) => {
        await once(request.signal, 'abort')
        aborted.resolve(request.signal.reason)
        throw request.signal.reason
      })
    })
    const wire = await connect()
    const left = logged(LEFT)
    wire.send(OPEN('/') + chunk('hello'))
    await logged('incoming request')
    if (transport === 'tcp') wire.socket.resetAndDestroy()
    else wire.socket.destroy()
    t.match(await aborted.promise, { code: 'FST_ERR_DUPLEX_ABORTED' })
    t.match(await left, { level: 30 })
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: a client that leaves is no error of the server`, async (t) => {
    const { ask, log, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (request, reply) => {
        reply.duplex.write('here')
        const upstream = new AbortController()
        request.signal.addEventListener('abort', () => upstream.abort())
        await new Promise((resolve, reject) => { upstream.signal.addEventListener('abort', () => reject(upstream.signal.reason)) })
      })
    })
    const left = logged(LEFT)
    const client = await ask('/')
    t.equal(await client.status(), 200)
    client.reset()
    t.match(await left, { level: 30, res: { statusCode: 200 } })
    t.strictSame(log.filter(({ level }) => level > 30), [])
  })

  t.test(`${name}: only the end of the body is an end, also behind the response`, async (t) => {
    const outcome = resolvers<string>()
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        duplex.end('over')
        let read = ''
        try {
          for await (const content of duplex) read += content
          outcome.resolve(`an end behind ${read}`)
        } catch (error) {
          outcome.resolve((error as { code: string }).code)
        }
      })
    })
    const client = await ask('/')
    client.write('abc')
    t.equal(await client.status(), 200)
    client.reset()
    t.match(await outcome.promise, /^FST_ERR_DUPLEX_(ABORTED|TRUNCATED)$/)
  })
}

// Closing

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: an exchange exists for app.close() before its handler has touched reply.duplex`, async (t) => {
    const entered = resolvers()
    let reason: unknown
    const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { closeGrace: 20 } }, async (request) => {
        entered.resolve()
        await once(request.signal, 'abort')
        reason = request.signal.reason
        await new Promise(() => {})
      })
    })
    const client = await ask('/')
    client.end()
    await entered.promise
    const closed = app.close()
    t.equal(await client.status(), 503)
    t.match(await client.body(), 'FST_ERR_DUPLEX_CLOSING')
    await closed
    t.match(reason, { code: 'FST_ERR_DUPLEX_CLOSING' })
  })

  t.test(`${name}: stopReading() ends the loop, and the rest of the request is dropped`, async (t) => {
    const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { closeGrace: 60_000 } }, async (_request, { duplex }) => {
        duplex.on('shutdown', () => duplex.stopReading())
        for await (const content of duplex) duplex.write(content)
        await once(duplex.stopReading().end(' and bye'), 'close')
        duplex.stopReading() // without effect now
      })
    })
    const client = await ask('/')
    client.write('hello')
    t.equal(await client.status(), 200)
    const closed = app.close()
    t.equal(await client.body(), 'hello and bye')
    client.end()
    await closed
  })

  t.test(`${name}: a response that has ended needs no reader any more, in an app that closes`, async (t) => {
    const reading = resolvers()
    const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { closeGrace: 60_000 } }, async (_request, { duplex }) => {
        duplex.end('over')
        duplex.once('data', () => reading.resolve())
        await once(duplex, 'close')
      })
    })
    const client = await ask('/')
    client.write('some')
    await reading.promise
    const closed = app.close()
    t.equal(await bodyOf(client), 'over')
    client.end()
    await closed
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: nothing outlasts closeGrace for long`, async (t) => {
    const entered: (() => void)[] = []
    const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.setErrorHandler(async function * () { for (;;) { yield 'z'; await immediate() } } as () => unknown)
      const options = { ...routeOptions, duplex: { closeGrace: 20 } }
      app.post('/endless-answer', options, async () => { entered.pop()!(); await new Promise(() => {}) })
      app.post('/hijacked', options, (_request, reply) => { entered.pop()!(); reply.hijack() })
      app.post('/slow-hook', { ...options, preHandler: async () => { entered.pop()!(); await new Promise(() => {}) } }, async () => {})
    })
    for (const path of ['/endless-answer', '/hijacked', '/slow-hook']) {
      const isEntered = new Promise<void>((resolve) => { entered.push(resolve) })
      await ask(path)
      await isEntered
      if (kind.http2 !== true) break // they would wait for each other
    }
    await app.close()
    t.pass('closed')
  })

  t.test(`${name}: a listener for shutdown that throws, on a stream that opens while the app closes`, async (t) => {
    const held = resolvers()
    const goOn = resolvers()
    const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { closeGrace: 60_000 }, preHandler: async () => { held.resolve(); await goOn.promise } }, async (_request, { duplex }) => {
        duplex.on('shutdown', () => { throw new Error('in a listener') })
        await new Promise(() => {})
      })
    })
    const client = await ask('/')
    client.end()
    await held.promise
    const closed = app.close()
    await immediate()
    goOn.resolve()
    t.equal(await client.status(), 500)
    t.match(await client.body(), 'in a listener')
    await closed
  })

  t.test(`${name}: a handler that throws undefined after its client has ended its side`, async (t) => {
    const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        duplex.write('some')
        await duplex.toArray()
        await immediate() // what fails in the turn of the first write was never sent
        return Promise.reject() // eslint-disable-line prefer-promise-reject-errors -- as sloppy handlers do
      })
    })
    const errored = logged('request errored')
    const client = await ask('/')
    client.end()
    await errored
    await t.rejects(bodyOf(client))
  })

  t.test(`${name}: stopReading() in a listener, after the response`, async (t) => {
    const stopped = resolvers()
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { drainTimeout: 60_000 } }, (_request, { duplex }) => {
        duplex.end('ok').on('finish', () => {
          duplex.on('data', () => { duplex.stopReading(); stopped.resolve() })
        })
        duplex.on('data', () => {})
      })
      app.post('/next', { ...routeOptions, duplex: true }, async function * () { yield 'next' })
    })
    const client = await ask('/')
    client.write('some')
    t.equal(await bodyOf(client), 'ok')
    client.write('more')
    await stopped.promise
    client.end()
    const next = await ask('/next')
    next.end()
    t.equal(await bodyOf(next), 'next')
  })
}

t.test('h2c: a stream that is reset before its response has finished', async (t) => {
  const responses: string[] = []
  const over = resolvers()
  const { app, ask } = await serveKind(t, KINDS.h2c, (app, routeOptions) => {
    app.addHook('onResponse', async ({ url }) => { responses.push(url); if (responses.length === 10) over.resolve() })
    app.post('/*', { ...routeOptions, duplex: { idleTimeout: 0 } }, (_request, { duplex }) => { duplex.end('x'.repeat(100_000)) })
  })
  for (let i = 0; i < 10; i++) {
    const client = await ask(`/${i}`)
    client.write('a')
    client.pause()
    await client.status()
    client.reset()
  }
  await over.promise
  await app.close()
  t.equal(new Set(responses).size, 10)
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: request.signal does not abort before the exchange is over, nor at a good end`, async (t) => {
    let signal!: AbortSignal
    const closed = resolvers()
    const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (request, { duplex }) => {
        ({ signal } = request)
        request.raw.on('close', () => closed.resolve())
        for await (const content of duplex) t.ok(content.length > 0)
        for (let i = 0; i < 10; i++) await immediate()
        t.notOk(signal.aborted, 'read')
        duplex.end('read')
      })
    })
    const client = await ask('/')
    const completed = logged('request completed')
    client.write('some')
    client.end()
    t.equal(await bodyOf(client), 'read')
    await completed
    if (name !== 'raw') await closed.promise // Node's parser finishes that request later
    t.notOk(signal.aborted, 'ended')
  })

  t.test(`${name}: an answer is complete when it was sent, however long the rest of the request takes`, async (t) => {
    const { ask, log, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        for await (const content of duplex) t.ok(content.length > 0)
      })
    }, { plugin: { idleTimeout: 50, drainTimeout: 500 } })
    const completed = logged('request completed')
    const client = await ask('/')
    client.write('some')
    t.equal(await client.status(), 408)
    t.match(await client.body(), 'FST_ERR_DUPLEX_IDLE')
    await completed
    t.equal(client.resetCode() ?? 0, 0)
    t.strictSame(log.filter(({ msg }) => /^request (completed|errored)/.test(msg)).map(({ msg }) => msg), ['request completed'])
  })
}

/** Ways to answer before the request was read. */
const EARLY: Record<string, { onRequest?: Handler, handler?: Handler }> = {
  'a hook': { onRequest: async (_request, reply) => reply.code(403).send('no') },
  'the handler, through Fastify': { handler: async (_request, reply) => reply.code(403).send('no') },
  'the handler, by throwing': { handler: async () => { throw Object.assign(new Error('no'), { statusCode: 403 }) } },
  'the handler, through the stream': { handler: (_request, reply) => { reply.code(403).duplex.end('no') } },
  'the handler, a turn behind the head': {
    handler: async (_request, reply) => {
      reply.code(403).duplex.flushHeaders()
      await immediate()
      reply.duplex.end('no')
    }
  },
  'a loop that is left': {
    handler: async (_request, reply) => {
      for await (const content of reply.duplex) if (content.length > 0) break
      reply.code(403).duplex.end('no')
    }
  },
  'a loop that is left behind the head': {
    handler: async (_request, reply) => {
      reply.code(403).duplex.flushHeaders()
      for await (const content of reply.duplex) if (content.length > 0) break
      reply.duplex.end('no')
    }
  }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: the connection is kept behind an early answer to a long upload`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      for (const [index, hooks] of Object.values(EARLY).entries()) {
        app.post(`/${index}`, { ...routeOptions, duplex: true, handler: () => {}, ...hooks } as any)
      }
    }, { plugin: { drainLimit: 1000, drainTimeout: 60_000 } })
    for (const [index, who] of Object.keys(EARLY).entries()) {
      const client = await ask(`/${index}`)
      client.write('x'.repeat(500))
      t.equal(await client.status(), 403, who)
      t.match(await client.body(), 'no', who)
      for (let i = 0; i < 20; i++) client.write('x'.repeat(10_000))
      client.end()
    }
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: an error handler that destroys its stream`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.setErrorHandler(async (_error, _request, { duplex }) => { duplex.destroy() })
      app.post('/', { ...routeOptions, duplex: true }, async () => { throw new Error('of the handler') })
    })
    const client = await ask('/')
    client.end()
    t.equal(await client.status(), 500)
    t.match(await client.body(), 'FST_ERR_DUPLEX_DESTROYED')
  })
}

t.test('writeInformation() into a response that other code has begun', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: true }, async (_request, { raw, duplex }) => {
      raw.writeHead(200, { 'content-length': 2 }).write('a')
      t.equal(duplex.writeInformation(102), false)
      raw.end('b')
    })
  })
  t.match(await (await connect()).request(GET('/')), { statusCode: 200, body: 'ab' })
})

t.test('a detached connection is told that the app closes', async (t) => {
  const { app, connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: { closeGrace: 60_000 } }, (_request, { duplex }) => {
      const { socket } = duplex.detach()
      t.throws(() => duplex.stopReading(), { code: 'FST_ERR_DUPLEX_DETACHED' })
      duplex.once('shutdown', () => socket.end('bye'))
      socket.on('error', () => {}).resume().write('raw')
    })
  })
  const wire = await connect()
  wire.send(GET('/'))
  t.equal(String((await once(wire.socket, 'data'))[0]), 'raw')
  const closed = app.close()
  t.equal(String((await once(wire.socket, 'data'))[0]), 'bye')
  wire.socket.end()
  await closed
})

// Failures that nobody waits for

/** Handlers with a listener for 'error' and without one who would answer. */
const UNATTENDED: Record<string, { handler: Handler, code: string }> = {
  'listeners, and the reply returned': {
    handler: async (_request, reply) => {
      reply.duplex.on('data', () => {}).on('error', () => {})
      return reply
    },
    code: 'FST_ERR_DUPLEX_BODY_LIMIT'
  },
  'a body that is shorter than its content-length': {
    handler: async (_request, reply) => {
      reply.duplex.on('error', () => {})
      reply.header('content-length', 5).duplex.end('abc')
    },
    code: 'FST_ERR_DUPLEX_LENGTH'
  },
  'the same behind a loop over the request half': {
    handler: async (_request, reply) => {
      for await (const content of reply.duplex.requestBody) if (content.length > 0) break
      reply.header('content-length', 5).duplex.end('abc')
    },
    code: 'FST_ERR_DUPLEX_LENGTH'
  },
  'a value behind the head': {
    handler: async (_request, { duplex }) => {
      duplex.on('error', () => {}).write('some')
      return 'late'
    },
    code: 'FST_ERR_DUPLEX_SENT_LATE'
  }
}

for (const [name, kind] of Object.entries(KINDS)) {
  for (const [what, { handler, code }] of Object.entries(UNATTENDED)) {
    t.test(`${name}: a failure is answered although somebody listens: ${what}`, async (t) => {
      const { ask } = await serveKind(t, kind, (app, routeOptions) => {
        app.post('/', { ...routeOptions, duplex: { bodyLimit: code === 'FST_ERR_DUPLEX_BODY_LIMIT' ? 10 : 100, idleTimeout: 0 } }, handler as any)
      })
      const client = await ask('/')
      client.write('more than ten bytes')
      t.ok(await client.status() >= 400)
      t.match(await client.body(), code)
    })
  }

  t.test(`${name}: a handler that never answers a failure is answered for when it is idle`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        duplex.on('error', () => {})
        await new Promise(() => {})
      })
    }, { plugin: { idleTimeout: 50 } })
    const client = await ask('/')
    t.equal(await client.status(), 408)
    t.match(await client.body(), 'FST_ERR_DUPLEX_IDLE')
  })

  t.test(`${name}: what is corked was not sent: idle is answered with 408`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, (_request, { duplex }) => {
        duplex.cork()
        duplex.write('some')
      })
    }, { plugin: { idleTimeout: 50 } })
    const client = await ask('/')
    t.ok(await client.status() >= 400)
    t.match(await client.body(), /FST_ERR_DUPLEX_(IDLE|NOT_ENDED)/)
  })

  t.test(`${name}: what is sent behind a head that a hook or an error handler has written`, async (t) => {
    const { ask, log } = await serveKind(t, kind, (app, routeOptions) => {
      const preHandler = async (_request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
        reply.duplex.write('some')
        await immediate()
        return reply.code(403).send('late')
      }
      const errorHandler = async (_error: Error, _request: FastifyRequest, { duplex }: FastifyReply): Promise<string> => {
        duplex.write('some')
        await immediate()
        return 'late'
      }
      app.post('/hook', { ...routeOptions, duplex: true, preHandler }, () => {})
      app.post('/handler', { ...routeOptions, duplex: true, errorHandler }, async () => { throw new Error('of the handler') })
      app.post('/sync', { ...routeOptions, duplex: true, errorHandler (_error, _request, { duplex }) { duplex.write('some'); return 'late' } }, async () => { throw new Error('of the handler') })
    }, { plugin: { idleTimeout: 60_000 } })
    for (const path of ['/hook', '/handler', '/sync']) {
      const client = await ask(path)
      client.end()
      if (path === '/sync') t.match(await bodyOf(client), 'FST_ERR_DUPLEX_SENT_LATE')
      else await t.rejects(bodyOf(client), path)
      t.ok(log.some(({ err }) => err?.code === 'FST_ERR_DUPLEX_SENT_LATE'), path)
      if (kind.http2 !== true) break // the connection is closed
    }
  })

  t.test(`${name}: a client that leaves behind a handler that returns in the turn of its first write`, async (t) => {
    const { ask, log, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        duplex.write('some')
        duplex.on('data', () => {})
      })
    })
    const over = logged('stream closed prematurely')
    const client = await ask('/')
    t.equal(await client.status(), 200)
    client.reset()
    await over
    for (let i = 0; i < 5; i++) await immediate()
    t.strictSame(log.filter(({ level }) => level > 30), [])
  })
}

t.test('a tunnel does not begin with an answer of Fastify', async (t) => {
  for (const [name, kind] of Object.entries(KINDS)) {
    if (kind.http2 === true) continue
    const { connect } = await serveKind(t, kind, (app, routeOptions) => {
      app.addHttpMethod('CONNECT')
      app.route({ method: 'CONNECT', url: '*', ...routeOptions, duplex: true, handler: async () => 'answer' })
      app.post('/', { ...routeOptions, duplex: true }, async (_request, reply) => reply.code(101).header('upgrade', 'tcp').send())
      app.get('/next', async () => 'next')
    })
    for (const head of ['CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n', 'POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n']) {
      const wire = await connect()
      t.match(await wire.request(head), { statusCode: 500, body: /FST_ERR_DUPLEX_UPGRADE/ }, name)
    }
  }
})

t.test('asynchronous constraint: an endless response to a client that has ended its side', async (t) => {
  let written = 0
  const { connect, logged } = await serveKind(t, KINDS['asynchronous constraint'], (app, routeOptions) => {
    app.get('/', { ...routeOptions, duplex: true }, async function * () {
      for (;;) {
        written += 50_000
        yield Buffer.alloc(50_000)
      }
    })
  })
  const over = logged('stream closed prematurely')
  const wire = await connect()
  wire.send(GET('/'))
  await wire.head()
  wire.socket.end()
  await over
  t.ok(written < 100_000_000, 'backpressure holds, and other code runs')
})

t.test('many interim responses of a request that is not in turn', async (t) => {
  const warnings: Error[] = []
  process.on('warning', (warning) => { warnings.push(warning) })
  let answer = (): void => {}
  for (const kind of [KINDS.raw, KINDS['asynchronous constraint']]) {
    const { connect } = await serveKind(t, kind, (app, routeOptions) => {
      app.get('/slow', (_request, reply) => { answer = () => reply.send('slow') })
      app.get('/', { ...routeOptions, duplex: true }, (_request, { duplex }) => {
        for (let i = 0; i < 20; i++) duplex.writeInformation(102)
        duplex.end('done')
        answer()
      })
    })
    const wire = await connect()
    wire.send(GET('/slow') + GET('/'))
    t.match(await wire.response(), { body: 'slow' })
    for (let i = 0; i < 20; i++) t.match(await wire.head(), { statusCode: 102 })
    t.match(await wire.response(), { body: 'done' })
  }
  t.strictSame(warnings, [])
})

// Other code's hand on the response

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: a response that other code ends is cut off`, async (t) => {
    const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, reply) => {
        reply.duplex.write('first;')
        await immediate()
        reply.raw.end()
      })
      app.post('/at-once', { ...routeOptions, duplex: true }, (_request, reply) => {
        reply.duplex.write('first;')
        reply.raw.end()
      })
      app.post('/destroyed', { ...routeOptions, duplex: true }, (_request, reply) => {
        reply.duplex.write('first;')
        reply.raw.end()
        reply.duplex.destroy()
      })
      app.post('/thrown', { ...routeOptions, duplex: true }, async (_request, reply) => {
        reply.duplex.end('all')
        reply.raw.end()
        throw new Error('of the handler')
      })
    })
    for (const path of ['/', '/at-once', '/destroyed', '/thrown']) {
      const errored = logged('request errored')
      const client = await ask(path)
      client.end()
      await t.rejects(bodyOf(client), path)
      t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_DESTROYED' } })
      if (kind.http2 !== true) break // the connection is closed
    }
  })
}

t.test('h2c: the reset of a long request does not overtake the trailers of its response', async (t) => {
  const { port } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainLimit: 10, drainTimeout: 100 } }, async (_request, { duplex }) => {
      for await (const content of duplex) if (content.length > 0) break
      duplex.setTrailers({ a: 'b' }).end()
    })
  }, { fastify: { http2: true } })
  const session = http2.connect(`http://127.0.0.1:${port}`)
  t.teardown(() => session.destroy())
  const stream = session.request({ ':path': '/', ':method': 'POST' })
  const trailers = once(stream, 'trailers')
  stream.resume().write('x'.repeat(10_000))
  t.match((await trailers)[0], { a: 'b' })
  await once(stream, 'close')
  t.equal(stream.rstCode, 0)
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`${name}: what other code writes into a response is dropped`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { raw, duplex }) => {
        duplex.write('first;')
        await immediate()
        raw.write('other')
        await new Promise((resolve) => { raw.write('other', resolve) })
        duplex.end('last')
      })
    })
    const client = await ask('/')
    client.end()
    t.equal(await bodyOf(client), 'first;last')
  })

  t.test(`${name}: trailers of a response that has no trailer section`, async (t) => {
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, (_request, reply) => {
        reply.header('content-length', 3).duplex.setTrailers({ a: 'b' }).end('all')
      })
    })
    const client = await ask('/')
    client.end()
    t.equal(await client.status(), 500)
    t.match(await client.body(), 'FST_ERR_DUPLEX_NO_TRAILERS')
  })
}

t.test('nothing follows a response that other code has ended', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, reply) => {
      reply.duplex.write('first;')
      await immediate()
      reply.raw.end('from elsewhere')
    })
  })
  const wire = await connect()
  wire.send(chunked('/') + GET('/none'))
  await wire.head()
  await t.rejects(wire.body(), CUT_OFF)
})

t.test('a generator that ends the response itself', async (t) => {
  const { connect, log } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: true }, async function * (_request, { duplex }) { await once(duplex.end('ended'), 'finish') })
  })
  const wire = await connect()
  for (let i = 0; i < 2; i++) t.match(await wire.request(GET('/')), { body: 'ended' })
  t.strictSame(log.filter(({ level }) => level > 30), [])
})

t.test('asynchronous constraint: a head of other code is cut off', async (t) => {
  const { ask, logged } = await serveKind(t, KINDS['asynchronous constraint'], (app, routeOptions) => {
    app.post('/', { ...routeOptions, duplex: true }, (_request, reply) => {
      reply.duplex.write('some')
      reply.raw.writeHead(201)
    })
  })
  const errored = logged('request errored')
  const client = await ask('/')
  client.end()
  await t.rejects(bodyOf(client))
  t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_DESTROYED' } })
})
