// Error handlers that answer as handlers do: by hand with `reply.duplex`, or with a body that they return.

import { once } from 'node:events'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { KINDS, serveKind } from '../support/kinds.ts'
import { CUT_OFF, OPEN, TRANSPORTS, chunk, chunked, resolvers, serve, LEFT } from '../support/wire.ts'

type ErrorHandler = (this: unknown, error: Error, request: FastifyRequest, reply: FastifyReply) => any
type Handler = (request: FastifyRequest, reply: FastifyReply) => any

/** Each answers `418 handled ERROR`. */
const ANSWERS: Record<string, ErrorHandler> = {
  byHand: (error, request, reply) => { reply.code(418).duplex.end(`handled ${error.message}`) },
  byHandReturned: (error, request, reply) => reply.code(418).duplex.end(`handled ${error.message}`),
  byHandLater: (error, request, reply) => {
    setImmediate(() => {
      reply.code(418).duplex.write('handled ')
      setImmediate(() => reply.duplex.end(error.message))
    })
  },
  async: async (error, request, reply) => {
    await immediate()
    reply.code(418).duplex.write('handled ')
    await immediate()
    reply.duplex.end(error.message)
  },
  pipeline: async (error, request, reply) => pipeline(Readable.from(['handled ', error.message]), reply.code(418).duplex),
  web: async (error, request, reply) => {
    const writer = reply.code(418).duplex.web().writable.getWriter()
    await writer.write(`handled ${error.message}`)
    await writer.close()
  },
  reads: async (error, request, reply) => {
    // The readable side has ended.
    return ['handled ', error.message, ...await reply.code(418).duplex.toArray()].join('')
  },
  generator: async function * (error, request, reply) {
    yield 'handled '
    yield error.message
    reply.code(500) // too late
  },
  returned: (error, request, reply) => words(error, reply),
  promised: async (error, request, reply) => words(error, reply),
  readable: async (error, request, reply) => {
    reply.code(418)
    return Readable.from(['handled ', error.message])
  },
  response: (error) => new Response(`handled ${error.message}`, { status: 418 }),
  ordinary: (error, request, reply) => { reply.code(418).send(`handled ${error.message}`) },
  ordinaryReturned: async (error, request, reply) => reply.code(418).send(`handled ${error.message}`)
}

async function * words (error: Error, reply: FastifyReply): AsyncGenerator<string> {
  reply.code(418)
  yield 'handled '
  yield error.message
}

/** Each fails with `oops` before its head. */
const FAILURES: Record<string, Handler> = {
  throws: () => { throw new Error('oops') },
  rejects: async () => { throw new Error('oops') },
  generator: async function * () { throw new Error('oops') },
  opens: (request, { duplex }) => { duplex.resume(); throw new Error('oops') },
  reads: async (request, { duplex }) => {
    await once(duplex, 'data')
    throw new Error('oops')
  },
  destroys: (request, { duplex }) => { duplex.destroy(new Error('oops')) },
  destroysAndWaits: async (request, { duplex }) => { await once(duplex.destroy(new Error('oops')), 'close') },
  pipes: (request, { duplex }) => { duplex.pipe(duplex); throw new Error('oops') },
  writesLater: async (request, { duplex }) => {
    setImmediate(() => duplex.on('error', () => {}).write('too late'))
    throw new Error('oops')
  }
}

function routes (app: FastifyInstance, routeOptions = {}): void {
  for (const [answer, errorHandler] of Object.entries(ANSWERS)) {
    app.register(async (app) => {
      app.setErrorHandler(errorHandler)
      for (const [failure, handler] of Object.entries(FAILURES)) app.post(`/${answer}/${failure}`, { ...routeOptions, duplex: true }, handler)
      app.post(`/${answer}/onRequest`, { ...routeOptions, duplex: true, onRequest: (request, reply, done) => { done(new Error('oops')) } }, () => {})
      app.post(`/${answer}/preHandler`, { ...routeOptions, duplex: true, preHandler: async (request, reply) => { reply.duplex.resume(); throw new Error('oops') } }, () => {})
    })
  }
}

const PATHS = Object.keys(ANSWERS).flatMap((answer) => [...Object.keys(FAILURES), 'onRequest', 'preHandler'].map((failure) => `/${answer}/${failure}`))

for (const transport of TRANSPORTS) {
  t.test(`error handlers answer, over ${transport}`, async (t) => {
    let errors = 0
    const { connect, log } = await serve(t, transport, (app) => {
      app.addHook('onError', async () => { errors++ })
      routes(app)
    })
    const wire = await connect()
    for (const path of PATHS) {
      wire.send(OPEN(path) + chunk('some'))
      t.match(await wire.response(), { statusCode: path.startsWith('/generator/') ? 200 : 418, body: 'handled oops', fields: { connection: 'keep-alive' } }, path)
      wire.send(chunk('rest') + '0\r\n\r\n')
    }
    t.equal(errors, PATHS.length, 'the onError hooks run once for each')
    t.equal(log.filter(({ msg }) => msg === 'request completed').length, PATHS.length)
    t.strictSame(log.filter(({ level }) => level > 30), [])
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`error handlers answer: ${name}`, async (t) => {
    const { app, ask } = await serveKind(t, kind, routes)
    for (const path of PATHS) {
      const asked = await ask(path)
      asked.write('some')
      t.equal(await asked.status(), path.startsWith('/generator/') ? 200 : 418, path)
      t.equal(await asked.body(), 'handled oops')
      asked.end()
    }
    for (const path of PATHS) t.match(await app.inject({ method: 'POST', url: path, payload: 'some' }), { payload: 'handled oops' }, `${path}, injected`)
  })
}

t.test('HEAD', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.get('/', { duplex: true, errorHandler: ANSWERS.promised }, async () => { throw new Error('oops') })
  })
  const wire = await connect()
  for (const body of ['', 'handled oops']) {
    const method = body === '' ? 'HEAD' : 'GET'
    t.match(await wire.request(`${method} / HTTP/1.1\r\nHost: a\r\n\r\n`), { body })
  }
})

t.test('errors of the request', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.setErrorHandler((error: any, request, reply) => { reply.code(error.statusCode).duplex.end(error.code) })
    const handlers: Record<string, Handler> = {
      '/loop': async (request, reply) => { for await (const chunk of reply.duplex) chunk.toString() },
      '/callbacks': (request, reply) => { reply.duplex.on('data', () => {}) },
      '/waits': async (request, reply) => { reply.duplex.resume(); await new Promise(() => {}) }
    }
    for (const [url, handler] of Object.entries(handlers)) app.post(url, { duplex: true, bodyLimit: 8 }, handler)
  })
  for (const url of ['/loop', '/callbacks', '/waits']) {
    for (const [bytes, statusCode, body] of [[chunk('some') + 'nonsense', 400, 'FST_ERR_DUPLEX_CHUNK'], [chunk('much too long'), 413, 'FST_ERR_DUPLEX_BODY_LIMIT']] as const) {
      const wire = await connect()
      t.match(await wire.request(OPEN(url) + bytes), { statusCode, body, fields: statusCode === 400 ? { connection: 'close' } : {} }, url)
    }
    const wire = (await connect()).send(OPEN(url) + chunk('some'))
    wire.socket.end()
    t.match(await wire.response(), { statusCode: 400, body: 'FST_ERR_DUPLEX_TRUNCATED' })
  }
  t.match(await (await connect()).request('POST /loop HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n'), { statusCode: 501, body: 'FST_ERR_DUPLEX_TRANSFER_CODING' })
})

t.test('an error handler that fails', async (t) => {
  const { connect, logged, log } = await serve(t, 'tcp', async (app) => {
    app.setErrorHandler((error: Error, request, reply) => { reply.code(500).duplex.end(`parent: ${error.message}`) })
    await app.register(async (app) => {
      const own: Record<string, ErrorHandler> = {
        '/throws': () => { throw new Error('again') },
        '/rejects': async () => { throw new Error('again') },
        '/opens-and-throws': (error, request, { duplex }) => { duplex.setTrailers({ a: 'b' }); setImmediate(() => duplex.on('error', () => {}).write(error.message)); throw new Error('again') },
        '/sends': (error, request, reply) => { reply.send(new Error(`${error.message} again`)) },
        '/generator-throws': async function * () { throw new Error('again') },
        '/cut-off': async (error, request, { duplex }) => { duplex.write('begun'); await immediate(); throw error },
        '/cut-off-now': (error, request, { duplex }) => { duplex.write('begun'); setImmediate(() => duplex.destroy(error)) },
        '/cut-off-generator': async function * (error) { yield 'begun'; await immediate(); throw error },
        '/after-end': async (error, request, { duplex }) => { await new Promise<void>((resolve) => { duplex.end('ended', () => resolve()) }); throw error }
      }
      for (const [url, errorHandler] of Object.entries(own)) {
        app.post(url, { duplex: true, errorHandler }, async (request, { duplex }) => { duplex.resume(); throw new Error('oops') })
      }
    })
  })
  const wire = await connect()
  for (const [url, message] of [['/throws', 'again'], ['/rejects', 'again'], ['/opens-and-throws', 'again'], ['/sends', 'oops again'], ['/generator-throws', 'again']]) {
    t.match(await wire.request(chunked(url, 'some')), { statusCode: 500, body: `parent: ${message}` }, url)
  }
  const late = logged('duplex error handler failed after its response')
  t.match(await wire.request(chunked('/after-end', 'some')), { body: 'ended' })
  t.match(await late, { err: { message: 'oops' } })
  t.notOk(log.some(({ msg }) => msg === 'request errored'))
  for (const url of ['/cut-off', '/cut-off-now', '/cut-off-generator']) {
    const errored = logged('request errored')
    const wire = (await connect()).send(chunked(url, 'some'))
    t.equal((await wire.head()).statusCode, 200)
    await t.rejects(wire.body(), CUT_OFF)
    t.match(await errored, { err: { message: 'oops' } })
  }
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`the client leaves while an error handler answers: ${name}`, async (t) => {
    const cancelled = resolvers()
    const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.setErrorHandler(() => ({
        async * [Symbol.asyncIterator] () {
          try {
            for (;;) yield Buffer.alloc(65_536)
          } finally {
            cancelled.resolve()
          }
        }
      }))
      app.post('/', { ...routeOptions, duplex: true }, async () => { throw new Error('oops') })
    })
    const left = logged(LEFT)
    const asked = await ask('/')
    t.equal(await asked.status(), 200)
    asked.pause()
    asked.leave()
    await cancelled.promise
    t.match(await left, { level: 30 })
  })
}

t.test('code of the handler cannot write to the stream of the error handler', async (t) => {
  const errors: string[] = []
  const over = resolvers()
  const { connect } = await serve(t, 'tcp', (app) => {
    app.setErrorHandler(async (error: Error, request, { duplex }) => {
      await immediate()
      duplex.write(`handled ${error.message}`)
      await over.promise
      duplex.end()
    })
    app.post('/', { duplex: true, handlerTimeout: 20 }, async (request, { duplex }) => {
      duplex.on('error', (error: any) => { errors.push(error.code) }).resume()
      await once(request.signal, 'abort')
      while (errors.length === 0) await immediate()
      duplex.write('mixed up')
      setImmediate(over.resolve)
      throw new Error('too late')
    })
  })
  const wire = await connect()
  t.match(await wire.request(chunked('/', 'some')), { body: /^handled Request timed out after 20 ?ms((?!mixed up).)*$/ })
  t.strictSame(errors, ['FST_ERR_DUPLEX_HEAD_SENT'])
  t.match(await wire.request(chunked('/', 'some')), { statusCode: 200 }, 'the connection is kept')
})
