// The halves of an exchange in the hands of code that destroys what it was given: `requestBody` and `web()`.

import { type EventEmitter, once } from 'node:events'
import { type IncomingMessage, type ServerResponse, createServer } from 'node:http'
import net, { type AddressInfo, type Server } from 'node:net'
import { PassThrough, type Readable, Writable } from 'node:stream'
import { finished, pipeline } from 'node:stream/promises'
import { setImmediate as immediate } from 'node:timers/promises'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { satisfies } from 'semver'
import t, { type Test } from 'tap'
import type { HttpDuplex } from '../../types/index.d.ts'
import { KINDS, serveKind } from '../support/kinds.ts'
import { CUT_OFF, OPEN, TRANSPORTS, UPGRADE, chunk, chunked, resolvers, serve, untilStuck } from '../support/wire.ts'

const withoutUndici = !satisfies(process.version, '>=22.19') && 'undici 8 needs Node 22.19'
const undici = (withoutUndici ? null : require('undici')) as typeof import('undici')

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

async function listen (t: Test, server: Server): Promise<number> {
  t.teardown(() => server.close())
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return (server.address() as AddressInfo).port
}

/** A server that answers in upper case, as the request comes; at `/early` it answers at once, and closes the connection. */
async function upstream (t: Test): Promise<string> {
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    if (request.url === '/early') {
      response.writeHead(200, { connection: 'close' }).end('early')
      return
    }
    response.flushHeaders()
    request.on('data', (chunk) => { response.write(String(chunk).toUpperCase()) }).on('end', () => { response.end() })
  })
  t.teardown(() => server.closeAllConnections())
  return `http://127.0.0.1:${await listen(t, server)}`
}

/** How the request half is given to somebody else who answers. */
function relays (url: string): Record<string, Handler | false> {
  return {
    'undici.request': withoutUndici === false && (async (request, reply) => {
      const { body } = await undici.request(url + request.url, { method: 'POST', body: reply.duplex.requestBody })
      await pipeline(body, reply.duplex)
    }),
    'undici.request, returned': withoutUndici === false && (async (request, reply) => {
      const { body } = await undici.request(url + request.url, { method: 'POST', body: reply.duplex.requestBody })
      return body
    }),
    fetch: (request, reply) => fetch(url + request.url, { method: 'POST', body: reply.duplex.requestBody as any, duplex: 'half' } as RequestInit),
    'fetch of the web stream': (request, reply) => fetch(url + request.url, { method: 'POST', body: reply.duplex.web().readable, duplex: 'half' } as RequestInit),
    'fetch, to the web stream': async (request, reply) => {
      const { readable, writable } = reply.duplex.web()
      const { body } = await fetch(url + request.url, { method: 'POST', body: readable, duplex: 'half' } as RequestInit)
      await body!.pipeTo(writable)
    }
  }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`the request half is given away: ${name}`, async (t) => {
    const url = await upstream(t)
    for (const [who, handler] of Object.entries(relays(url))) {
      await t.test(who, { skip: handler === false && withoutUndici }, async (t) => {
        const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
          for (const path of ['/upper', '/early']) app.post(path, { ...routeOptions, duplex: true }, handler as any)
        })
        for (let i = 0; i < 2; i++) {
          const completed = logged('request completed')
          const asked = await ask('/upper')
          asked.write('one')
          t.equal(await asked.status(), 200, 'the head comes while the request is open')
          asked.write('two')
          asked.end()
          t.equal(await asked.body(), 'ONETWO')
          await completed
        }
        const completed = logged('request completed')
        const early = await ask('/early')
        early.write('one')
        t.equal(await early.status(), 200)
        t.equal(await early.body(), 'early', 'an early answer arrives whole')
        early.end()
        await completed
        const next = await ask('/upper')
        next.end()
        t.equal(await next.status(), 200, 'the next request')
        t.equal(await next.body(), '')
      })
    }
  })
}

/** A TCP server that answers `early` to its first bytes, and closes. */
async function earlyServer (t: Test): Promise<number> {
  return listen(t, net.createServer((socket) => {
    socket.on('error', () => {}).once('data', () => { socket.end('early', () => socket.destroy()) })
  }))
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`pipeline() to an upstream that answers early: ${name}`, async (t) => {
    const port = await earlyServer(t)
    const { ask, log } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (request, reply) => {
        const socket = net.connect(port, '127.0.0.1')
        const sent = pipeline(reply.duplex.requestBody, socket).then(() => 'sent', (error) => error.code)
        for await (const chunk of socket.iterator({ destroyOnReturn: false })) reply.duplex.write(chunk)
        socket.destroy()
        reply.duplex.end(` ${await sent}`)
      })
    })
    for (let i = 0; i < 2; i++) {
      const asked = await ask('/')
      asked.write('some')
      t.equal(await asked.status(), 200)
      t.match(await asked.body(), /^early (ERR_STREAM_PREMATURE_CLOSE|EPIPE|ECONNRESET)$/)
      asked.end()
    }
    t.notOk(log.some((line) => line.msg === 'request errored'))
  })
}

/** Ways to read the request half to its end. Each resolves with the text, or rejects. */
const READERS: Record<string, (reply: FastifyReply) => Promise<string>> = {
  loop: async ({ duplex }) => {
    let text = ''
    for await (const chunk of duplex.requestBody) text += chunk
    return text
  },
  data: async ({ duplex }) => {
    let text = ''
    duplex.requestBody.on('data', (chunk) => { text += chunk })
    await finished(duplex.requestBody)
    return text
  },
  readable: async ({ duplex: { requestBody } }) => {
    let text = ''
    requestBody.on('readable', () => { for (let chunk; (chunk = requestBody.read()) !== null;) text += chunk })
    await finished(requestBody)
    return text
  },
  pipeline: async ({ duplex }) => {
    const through = new PassThrough()
    const sent = pipeline(duplex.requestBody, through)
    sent.catch(() => {})
    let text = ''
    for await (const chunk of through) text += chunk
    await sent
    return text
  },
  web: async ({ duplex }) => {
    let text = ''
    const reader = duplex.web().readable.getReader()
    for (let result; !(result = await reader.read()).done;) text += Buffer.from(result.value)
    return text
  },
  'web-iterator': async ({ duplex }) => {
    let text = ''
    for await (const chunk of duplex.web().readable as any) text += Buffer.from(chunk)
    return text
  }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`readers of the request half: ${name}`, async (t) => {
    const errors: string[] = []
    const failed = new Map<string, () => void>()
    const { app, ask, connect } = await serveKind(t, kind, (app, routeOptions) => {
      for (const [reader, read] of Object.entries(READERS)) {
        const note = (error: any): never => {
          errors.push(`${reader} ${error.code}`)
          failed.get(reader)?.()
          throw error
        }
        const url = `/${reader}`
        app.post(url, { ...routeOptions, duplex: true, bodyLimit: 8 }, (request, reply) => read(reply).catch(note))
        app.post(`${url}/after-head`, { ...routeOptions, duplex: true, bodyLimit: 8 }, async (request, reply) => {
          reply.duplex.write('head')
          reply.duplex.end(await read(reply).catch(note))
        })
      }
    })
    for (const reader of Object.keys(READERS)) {
      const url = `/${reader}`
      const gone = new Promise<void>((resolve) => { failed.set(reader, resolve) })
      for (const end of ['', '/after-head']) {
        const whole = await ask(url + end)
        whole.write('one')
        whole.write('two')
        whole.end()
        t.equal(await whole.status(), 200)
        t.equal(await whole.body(), end === '' ? 'onetwo' : 'headonetwo', reader)
      }
      t.equal((await app.inject({ method: 'POST', url, payload: 'onetwo' })).payload, 'onetwo', `${reader}, injected`)
      t.match(await app.inject({ method: 'POST', url, payload: 'much too long' }), { statusCode: 413 }, `${reader}, injected`)
      errors.length = 0
      if (kind.http2) {
        const leaving = await ask(`${url}/after-head`)
        t.equal(await leaving.status(), 200)
        leaving.reset()
        await gone
        t.strictSame(errors, [`${reader} FST_ERR_DUPLEX_ABORTED`])
        continue
      }
      const raw = name === 'raw'
      t.match(await (await connect()).request(OPEN(url) + chunk('much too long')), { statusCode: 413 }, `${reader}: bodyLimit`)
      if (raw) t.match(await (await connect()).request(OPEN(url) + chunk('some') + 'nonsense'), { statusCode: 400 }, `${reader}: malformed`)
      for (const rest of raw ? [chunk('much too long'), 'nonsense'] : [chunk('much too long')]) {
        const wire = (await connect()).send(OPEN(`${url}/after-head`) + rest)
        await wire.head()
        await t.rejects(wire.body(), CUT_OFF)
      }
      const leaving = (await connect()).send(OPEN(`${url}/after-head`))
      await leaving.head()
      const before = errors.length
      const left = new Promise<void>((resolve) => { failed.set(reader, resolve) })
      leaving.socket.resetAndDestroy()
      await left
      t.strictSame(errors.slice(before), [`${reader} FST_ERR_DUPLEX_ABORTED`])
      t.strictSame(errors.slice(0, before), (raw ? ['BODY_LIMIT', 'CHUNK', 'BODY_LIMIT', 'CHUNK'] : ['BODY_LIMIT', 'BODY_LIMIT']).map((code) => `${reader} FST_ERR_DUPLEX_${code}`))
    }
  })
}

t.test('an error of the half that nobody handles is answered', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/sync', { duplex: true }, (request, reply) => { reply.duplex.requestBody.resume() })
    app.post('/waits', { duplex: true }, async (request, reply) => {
      reply.duplex.requestBody.resume()
      await new Promise(() => {})
    })
    app.post('/own', { duplex: true }, (request, reply) => { reply.duplex.requestBody.on('error', (error: any) => { reply.code(422).send(error.code) }).resume() })
    app.post('/web', { duplex: true }, (request, reply) => { reply.duplex.web().readable.getReader().read().catch(() => {}) })
  })
  for (const [url, statusCode, body] of [['/sync', 400, /CHUNK/], ['/waits', 400, /CHUNK/], ['/own', 422, 'FST_ERR_DUPLEX_CHUNK'], ['/web', 400, /CHUNK/]]) {
    t.match(await (await connect()).request(OPEN(url as string) + 'nonsense'), { statusCode, body }, url as string)
  }
})

/** Ways to be done with the request early. */
const LEAVERS: Record<string, (reply: FastifyReply) => unknown> = {
  destroy: ({ duplex }) => duplex.requestBody.destroy(),
  'destroy with an error': ({ duplex }) => duplex.requestBody.destroy(new Error('enough')),
  'destroy while it flows': ({ duplex }) => duplex.requestBody.resume().destroy(),
  'leave a loop': async ({ duplex }) => { for await (const chunk of duplex.requestBody) if (chunk.length > 0) break },
  'return an iterator that waits': async ({ duplex }) => {
    const iterator = duplex.requestBody[Symbol.asyncIterator]()
    await iterator.next()
    iterator.next().catch(() => {})
    await iterator.return!()
  },
  cancel: ({ duplex }) => duplex.web().readable.cancel(),
  'cancel a reader that waits': async ({ duplex }) => {
    const reader = duplex.web().readable.getReader()
    await reader.read()
    const pending = reader.read()
    await reader.cancel(new Error('enough'))
    return pending
  }
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`the request half is destroyed early: ${name}`, async (t) => {
    for (const [how, leave] of Object.entries(LEAVERS)) {
      const { ask, log, logged } = await serveKind(t, kind, (app, routeOptions) => {
        app.post('/', { ...routeOptions, duplex: true }, async (request, reply) => {
          await leave(reply)
          reply.duplex.write('still ')
          await immediate()
          reply.duplex.end('here')
        })
        app.post('/response-first', { ...routeOptions, duplex: true }, async (request, reply) => {
          reply.duplex.requestBody.on('data', () => {})
          await new Promise<void>((resolve) => { reply.duplex.end('done', () => resolve()) })
          await leave(reply)
          await new Promise(() => {})
        })
      }, { plugin: kind.http2 ? { drainTimeout: 20 } : {} }) // HTTP/2 waits for the client's end until then
      for (const [path, body] of [['/', 'still here'], ['/response-first', 'done'], ['/', 'still here']]) {
        if (path === '/response-first' && !/^(destroy|cancel$)/.test(how)) continue
        const completed = logged('request completed')
        const asked = await ask(path)
        asked.write('first')
        t.equal(await asked.status(), 200)
        t.equal(await asked.body(), body, `${how} ${path}`)
        await completed
        asked.end()
      }
      t.notOk(log.some((line) => line.level > 30), how)
    }
  })
}

for (const transport of TRANSPORTS) {
  t.test(`what is left of the request is dropped, over ${transport}`, async (t) => {
    const { connect } = await serve(t, transport, (app) => {
      app.post('/', { duplex: true }, async (request, reply) => {
        reply.duplex.requestBody.destroy()
        reply.duplex.end('done')
      })
    })
    const wire = await connect()
    for (let i = 0; i < 2; i++) t.match(await wire.request(chunked('/', 'some', 'content')), { body: 'done' })
    wire.send(OPEN('/'))
    t.match(await wire.response(), { body: 'done' })
    wire.send(chunk('the rest') + '0\r\n\r\n')
    t.match(await wire.request(chunked('/', 'next')), { body: 'done' })
    t.equal(wire.pending, 0)
  })
}

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`web streams: ${name}`, async (t) => {
    const left = resolvers<unknown>()
    const tooLate = resolvers<unknown>()
    const codes = async (promises: Promise<unknown>[]): Promise<string[]> => (await Promise.allSettled(promises)).map((result: any) => result.reason?.code)
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      const route = (url: string, handler: Handler): void => { app.post(url, { ...routeOptions, duplex: true }, handler as any) }
      route('/echo', async (request, reply) => {
        const { readable, writable } = reply.duplex.web()
        await readable.pipeTo(writable)
      })
      route('/upper', async (request, reply) => {
        const { readable, writable } = reply.duplex.web()
        const upper = new TransformStream<Uint8Array, string>({ transform (chunk, controller) { controller.enqueue(Buffer.from(chunk).toString().toUpperCase()) } })
        await readable.pipeThrough(upper).pipeTo(writable)
      })
      route('/close', async (request, reply) => {
        const writer = reply.duplex.web().writable.getWriter()
        await writer.write('text ')
        await writer.write(Uint8Array.of(65))
        await writer.close()
      })
      route('/abort-at-once', async (request, reply) => { await reply.duplex.web().writable.abort(new Error('why')) })
      route('/nonsense', async (request, reply) => { await reply.duplex.web().writable.getWriter().write({} as string) })
      route('/abort', async (request, reply) => {
        const { readable, writable } = reply.duplex.web()
        const writer = writable.getWriter()
        await writer.write('cut')
        await readable.getReader().read()
        await writer.abort('no error')
      })
      route('/left', async (request, reply) => {
        const { readable, writable } = reply.duplex.web()
        const writer = writable.getWriter()
        await writer.write('head')
        const pending = await codes([writer.closed, readable.getReader().read()])
        left.resolve([...pending, ...await codes([writer.write('more'), writer.close()])])
      })
      route('/too-late', async (request, reply) => {
        reply.duplex.write('head')
        await new Promise((resolve) => { reply.duplex.on('error', () => {}).on('close', resolve) })
        const { readable, writable } = reply.duplex.web()
        tooLate.resolve(await codes([writable.getWriter().closed, readable.getReader().read(), finished(reply.duplex.requestBody)]))
      })
    })
    for (const [url, body] of [['/echo', 'onetwo'], ['/upper', 'ONETWO']]) {
      const asked = await ask(url)
      asked.write('one')
      t.equal(await asked.status(), 200, 'the response begins while the request is open')
      asked.write('two')
      asked.end()
      t.equal(await asked.body(), body)
    }
    for (const [url, statusCode, body] of [['/close', 200, 'text A'], ['/abort-at-once', 500, /why/], ['/nonsense', 500, /FST_ERR_DUPLEX_CONTENT/]] as const) {
      const asked = await ask(url)
      t.equal(await asked.status(), statusCode, url)
      t.match(await asked.body(), body)
      asked.end()
    }
    const ABORTED = 'FST_ERR_DUPLEX_ABORTED'
    for (const [url, result, expected] of [['/left', left, [ABORTED, ABORTED, ABORTED, 'ERR_INVALID_STATE']], ['/too-late', tooLate, [ABORTED, ABORTED, ABORTED]]] as const) {
      const asked = await ask(url)
      t.equal(await asked.status(), 200)
      asked.reset()
      t.strictSame(await result.promise, expected, url)
      if (!kind.http2) break
    }
    if (!kind.http2) return
    const aborted = await ask('/abort')
    t.equal(await aborted.status(), 200)
    aborted.write('now')
    await t.rejects(aborted.body())
  })
}

for (const transport of TRANSPORTS) {
  t.test(`a web stream that is aborted cuts the response off, over ${transport}`, async (t) => {
    const codes = resolvers<unknown>()
    const { connect, logged } = await serve(t, transport, (app) => {
      app.post('/', { duplex: true }, async (request, reply) => {
        const { readable, writable } = reply.duplex.web()
        const writer = writable.getWriter()
        await writer.write('cut')
        const reader = readable.getReader()
        await reader.read()
        const results = await Promise.allSettled([writer.abort('no error'), reader.read(), writer.closed])
        codes.resolve(results.map((result: any) => result.reason?.code ?? result.reason))
      })
    })
    const wire = (await connect()).send(OPEN('/'))
    await wire.head()
    const errored = logged('request errored')
    wire.send(chunk('now'))
    await t.rejects(wire.body(), CUT_OFF)
    t.match(await errored, { err: { code: 'FST_ERR_DUPLEX_DESTROYED' } })
    t.strictSame(await codes.promise, [undefined, 'FST_ERR_DUPLEX_DESTROYED', 'no error'])
  })
}

// Backpressure

const MB = 1024 * 1024

for (const transport of TRANSPORTS) {
  t.test(`backpressure, over ${transport}`, async (t) => {
    const opened = resolvers<FastifyReply['duplex']>()
    let written = 0
    const held: FastifyReply[] = []
    const { connect } = await serve(t, transport, (app) => {
      for (const how of ['half', 'paused', 'web']) {
        app.post(`/${how}`, { duplex: true }, async (request, reply) => {
          const { requestBody } = reply.duplex
          if (how === 'half') requestBody.once('readable', () => {})
          if (how === 'paused') requestBody.once('data', () => { requestBody.pause() })
          if (how === 'web') await reply.duplex.web().readable.getReader().read()
          held.push(reply)
          await new Promise((resolve) => { reply.duplex.on('error', resolve) })
        })
      }
      app.post('/write', { duplex: true }, async (request, reply) => {
        const writer = reply.duplex.web().writable.getWriter()
        opened.resolve(reply.duplex)
        for (;;) {
          await writer.write(Buffer.alloc(65_536))
          written += 65_536
        }
      })
    })
    for (const how of ['half', 'paused', 'web']) {
      const wire = await connect()
      wire.send(`POST /${how} HTTP/1.1\r\nHost: a\r\nContent-Length: ${64 * MB}\r\n\r\n`).send(Buffer.alloc(64 * MB))
      await untilStuck(() => held.at(-1)?.duplex.bytesRead ?? 0)
      // What the reader has taken, what its half and the exchange have buffered: a socket read each.
      t.ok(held.at(-1)!.duplex.bytesRead <= 3 * 256 * 1024 + 65_536, `${how}: ${held.at(-1)!.duplex.bytesRead}`)
      wire.socket.destroy()
    }
    const wire = await connect()
    wire.socket.pause()
    wire.send(OPEN('/write'))
    const duplex = await opened.promise
    await untilStuck(() => written)
    t.ok(duplex.writableLength < 2 * 65_536, 'nothing piles up')
    t.ok(written < 32 * MB, `${written} bytes are in the kernel`)
  })
}

// Beside the exchange itself

t.test('the request half begins where the reading of the exchange has stopped', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (request, reply) => {
      const { duplex } = reply
      const [first] = await once(duplex.setEncoding('utf8'), 'data')
      duplex.pause()
      reply.duplex.write(`${first}|`)
      for await (const chunk of duplex.requestBody) {
        t.ok(Buffer.isBuffer(chunk), 'bytes')
        duplex.write(chunk)
      }
      t.equal(duplex.requestBody, duplex.requestBody, 'always the same')
      t.equal(duplex.web().readable, duplex.web().readable)
      duplex.end()
    })
    app.post('/ended', { duplex: true }, async (request, reply) => {
      await finished(reply.duplex.resume(), { writable: false })
      const chunks = await reply.duplex.requestBody.toArray()
      return { chunks }
    })
  })
  const wire = (await connect()).send(OPEN('/') + chunk('first'))
  await wire.head()
  t.equal(await wire.content(6), 'first|')
  wire.send(chunk('\xc3\xa9') + chunk('last') + '0\r\n\r\n')
  t.equal(await wire.body(), '\xc3\xa9last')
  t.match(await wire.request(chunked('/ended', 'some')), { body: '{"chunks":[]}' })
})

t.test('halves of an exchange that somebody else has answered', async (t) => {
  const codes = resolvers<unknown>()
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, (request, reply) => {
      reply.duplex.on('close', async () => {
        const { readable, writable } = reply.duplex.web()
        const results = await Promise.allSettled([writable.getWriter().closed, readable.getReader().read(), finished(reply.duplex.requestBody)])
        codes.resolve(results.map((result: any) => result.reason?.code))
      })
      reply.send('answered')
    })
    app.post('/ended', { duplex: true }, async (request, reply) => {
      const { readable, writable } = reply.duplex.web()
      await once(reply.duplex.end('ended'), 'finish')
      await t.rejects(writable.getWriter().close(), { code: 'ERR_STREAM_ALREADY_FINISHED' })
      await readable.cancel()
    })
  })
  t.match(await (await connect()).request(chunked('/', 'some')), { body: 'answered' })
  t.strictSame(await codes.promise, ['FST_ERR_DUPLEX_DESTROYED', 'FST_ERR_DUPLEX_DESTROYED', 'ERR_STREAM_PREMATURE_CLOSE'])
  t.match(await (await connect()).request(chunked('/ended', 'some')), { body: 'ended' })
})

t.test('what the request half has not given out is in the head of detach()', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/tunnel', { duplex: true }, async (request, reply) => {
      const { duplex } = reply.code(101).header('upgrade', 'x')
      await once(duplex.requestBody, 'readable')
      const { socket, head } = duplex.detach()
      socket.on('error', () => {}).end(`head ${head}`)
      await t.rejects(finished(duplex.requestBody), { code: 'FST_ERR_DUPLEX_DETACHED' })
    })
    app.post('/body', { duplex: true }, async (request, reply) => {
      await once(reply.duplex.requestBody, 'readable')
      t.throws(() => reply.duplex.detach(), { code: 'FST_ERR_DUPLEX_DETACH' })
      reply.duplex.end('no')
    })
  })
  const wire = await connect()
  t.match(await wire.request('POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na'), { body: 'no' })
  wire.send(UPGRADE('/tunnel', '', 'POST')).send('raw bytes')
  t.equal((await wire.head()).statusCode, 101)
  t.equal(await wire.body(), 'head raw bytes')
})

t.test('a half that nobody reads any more after the handler has returned ends after drainTimeout', async (t) => {
  const { connect, logged } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainTimeout: 20 } }, (request, reply) => {
      const { requestBody } = reply.duplex
      requestBody.once('data', () => { requestBody.pause() })
      reply.duplex.end('done')
    })
    app.post('/piped', { duplex: { drainTimeout: 1 } }, (request, reply) => {
      const slow = new PassThrough({ highWaterMark: 1 })
      reply.duplex.requestBody.pipe(slow)
      reply.duplex.end('done')
      piped.resolve(slow)
    })
  })
  const piped = resolvers<Readable>()
  const completed = logged('request completed')
  const wire = (await connect()).send(OPEN('/') + chunk('some'))
  t.match(await wire.response(), { body: 'done' })
  await completed
  wire.send('0\r\n\r\n' + OPEN('/piped') + chunk('some') + chunk('more'))
  t.match(await wire.response(), { body: 'done' })
  const slow = await piped.promise
  await new Promise((resolve) => { setTimeout(resolve, 20) }) // 20 times drainTimeout
  wire.send(chunk('last') + '0\r\n\r\n')
  t.equal(Buffer.concat(await slow.toArray()).toString(), 'somemorelast', 'the reader of a pipe may be slow')
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`the request half is read although the response has ended before: ${name}`, async (t) => {
    const collect = (body: Readable): Promise<string> => new Promise((resolve, reject) => {
      let all = ''
      body.on('data', (chunk) => { all += chunk }).on('end', () => resolve(all)).on('error', reject).on('close', () => reject(new Error('closed')))
    })
    const readers: Record<string, (duplex: HttpDuplex) => Promise<string>> = {
      'a listener for data': ({ requestBody }) => collect(requestBody),
      'a web stream': ({ web }) => new Response(web().readable).text(),
      'a web reader': async ({ web }) => {
        const reader = web().readable.getReader()
        let all = ''
        for (let result = await reader.read(); !result.done; result = await reader.read()) all += Buffer.from(result.value).toString()
        return all
      },
      'reads that do not wait for each other': async ({ web }) => {
        const reader = web().readable.getReader()
        const results = await Promise.all(Array.from({ length: 5 }, () => reader.read()))
        return results.map(({ value = '' }) => Buffer.from(value).toString()).join('')
      },
      'a web stream behind setEncoding()': (duplex) => {
        duplex.requestBody.setEncoding('utf8')
        return new Response(duplex.web().readable).text()
      },
      'one read for each readable, beside a web stream for writing': (duplex) => {
        t.ok(duplex.web().writable)
        return readers['one read for each readable'](duplex)
      },
      'a reader that begins later': async ({ requestBody }) => {
        for (let turn = 0; turn < 5; turn++) await immediate()
        return collect(requestBody)
      },
      'one read for each readable': ({ requestBody }) => new Promise((resolve) => {
        let all = ''
        requestBody.on('readable', () => { all += requestBody.read() ?? '' }).on('end', () => resolve(all))
      })
    }
    const contents: Record<string, Promise<string>> = {}
    for (const minRate of [0, 1]) {
      const { ask } = await serveKind(t, kind, (app, routeOptions) => {
        for (const [i, read] of Object.values(readers).entries()) {
          const begin = (duplex: HttpDuplex): Promise<string> => {
            duplex.web = duplex.web.bind(duplex)
            const content = contents[i] = read(duplex)
            content.catch(() => {})
            return content
          }
          const options = { ...routeOptions, duplex: { minRate } }
          app.post(`/${i}`, options, async (_request, { duplex }) => {
            const content = begin(duplex)
            duplex.end('done')
            await content
          })
          app.post(`/${i}/after`, options, async (_request, { duplex }) => {
            duplex.end('done')
            await begin(duplex)
          })
          // The reader of a handler that has returned must have begun.
          if (i < 5) app.post(`/${i}/returned`, options, (_request, { duplex }) => { begin(duplex); duplex.end('done') })
        }
      })
      for (const [i, reader] of Object.keys(readers).entries()) {
        for (const when of i < 5 ? ['', '/after', '/returned'] : ['', '/after']) {
          const asked = await ask(`/${i}${when}`)
          asked.write('one')
          t.equal(await asked.status(), 200)
          const body = asked.body()
          asked.write('two')
          await immediate()
          asked.write('three')
          asked.end()
          t.equal(await contents[i], 'onetwothree', `${reader} ${when}`)
          t.equal(await body, 'done')
        }
      }
    }
  })

  t.test(`a pipe of the request half that ends while it has paused does not hold the exchange: ${name}`, async (t) => {
    const ends: Record<string, (stuck: Writable, half: Readable) => void> = {
      destroyed: (stuck) => { stuck.destroy() },
      failed: (stuck) => { stuck.destroy(new Error('of the target')) },
      unpiped: (stuck, half) => { half.unpipe(stuck) },
      'all unpiped': (_stuck, half) => { half.unpipe() }
    }
    for (const [how, end] of Object.entries(ends)) {
      const stuck = new Writable({ highWaterMark: 1, write: () => {} })
      stuck.on('error', () => {})
      const handled = resolvers<Readable>()
      const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
        app.post('/', { ...routeOptions, duplex: { drainTimeout: 20 } }, (_request, { duplex }) => {
          duplex.requestBody.pipe(stuck)
          duplex.end('done')
          handled.resolve(duplex.requestBody)
        })
      })
      const asked = await ask('/')
      asked.write('one')
      t.equal(await asked.status(), 200, how)
      asked.write('two')
      const half = await handled.promise
      while (!half.isPaused()) await immediate()
      end(stuck, half)
      while (app.duplex.exchanges().length > 0) await immediate()
    }
  })

  t.test(`a request half whose reader has left does not hold the exchange, though the client is silent: ${name}`, async (t) => {
    const readers: Record<string, (half: Readable) => void> = {
      '/off': (half) => {
        half.on('data', function onData () { half.off('data', onData) })
      },
      '/piped': (half) => {
        const target = new PassThrough()
        half.pipe(target).once('data', () => { target.destroy() })
      }
    }
    for (const [url, read] of Object.entries(readers)) {
      const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
        app.post(url, { ...routeOptions, duplex: { drainTimeout: 20 } }, (_request, { duplex }) => {
          read(duplex.requestBody)
          duplex.end('done')
        })
      })
      const asked = await ask(url)
      asked.write('some')
      t.equal(await asked.status(), 200, url)
      while (app.duplex.exchanges().length > 0) await immediate()
      asked.leave()
    }
  })

  t.test(`a request half that nobody reads does not hold the exchange: ${name}`, async (t) => {
    const { ask, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: { drainTimeout: 60_000 } }, async (_request, { duplex }) => {
        const { writable } = duplex.web()
        const writer = writable.getWriter()
        await writer.write('done')
        await writer.close()
      })
      app.post('/half', { ...routeOptions, duplex: { drainTimeout: 60_000 } }, (_request, { duplex }) => {
        t.ok(duplex.requestBody)
        duplex.end('half')
      })
      app.post('/waits', { ...routeOptions, duplex: { drainTimeout: 20 } }, async (_request, { duplex }) => {
        await duplex.web().writable.close()
        await finished(duplex)
      })
    })
    for (const [path, body] of [['/', 'done'], ['/half', 'half'], ['/waits', '']]) {
      const completed = logged('request completed')
      const asked = await ask(path)
      t.equal(await asked.status(), 200)
      const received = asked.body()
      if (kind.http2) asked.end() // Node ends a stream of HTTP/2 only with both of its sides
      await completed
      t.equal(await received, body)
      asked.end()
    }
  })

  t.test(`a reader behind a request half that is destroyed learns of it: ${name}`, async (t) => {
    const codes: string[] = []
    const { ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.post('/', { ...routeOptions, duplex: true }, async (_request, { duplex }) => {
        const through = duplex.requestBody.pipe(new PassThrough())
        duplex.requestBody.on('error', ({ code }: NodeJS.ErrnoException) => { codes.push(code!) })
        await once(through, 'data')
        duplex.destroy()
      })
    })
    const asked = await ask('/')
    asked.write('some')
    t.equal(await asked.status(), 500)
    t.strictSame(codes, ['FST_ERR_DUPLEX_DESTROYED'])
    asked.end()
  })

  t.test(`an owner of the request half who begins too late learns of it: ${name}`, async (t) => {
    const seen: string[] = []
    const { app, ask } = await serveKind(t, kind, (app, routeOptions) => {
      app.route({
        ...routeOptions,
        method: ['GET', 'POST'],
        url: '/',
        duplex: { drainTimeout: 60_000 },
        async handler (request, { duplex }) {
          const { requestBody } = duplex
          const { socket, stream = socket } = request.raw as unknown as Record<string, EventEmitter>
          duplex.end('done')
          if (request.method === 'POST' || stream !== socket) await new Promise((resolve) => stream.on('close', resolve))
          await immediate()
          seen.push(await requestBody.toArray().then(() => 'whole', ({ code }) => code))
        }
      })
    })
    for (const method of ['GET', 'POST']) {
      const asked = await ask('/', {}, method)
      if (method === 'GET') asked.end()
      t.equal(await asked.status(), 200)
      if (method === 'POST') asked.leave()
      else t.equal(await asked.body(), 'done')
      while (seen.length === 0) await immediate()
      t.ok(['whole', 'ERR_STREAM_PREMATURE_CLOSE', 'FST_ERR_DUPLEX_ABORTED'].includes(seen.pop()!), method)
      while (app.duplex.exchanges().length > 0) await immediate()
    }
  })
}

t.test('an owner of the request half of a tunnel who begins too late learns of it', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: { drainTimeout: 1 } }, async (_request, reply) => {
      const { duplex } = reply.code(101).header('upgrade', 'x')
      const { requestBody } = duplex
      duplex.end('hi')
      await once(duplex, 'close')
      await t.rejects(requestBody.toArray(), { code: 'ERR_STREAM_PREMATURE_CLOSE' })
      await t.rejects(duplex.toArray(), { code: 'ERR_STREAM_PREMATURE_CLOSE' })
      done.resolve()
    })
  })
  const done = resolvers<void>()
  ;(await connect()).send(UPGRADE('/', '', 'POST') + 'content')
  await done.promise
})

t.test('the owner of the request half of a tunnel may begin behind the end of our side', async (t) => {
  const { connect } = await serve(t, 'tcp', (app) => {
    const contents: Record<string, (duplex: HttpDuplex) => Promise<string>> = {
      half: async (duplex) => {
        const { requestBody } = duplex
        duplex.end('hi')
        await finished(duplex, { readable: false })
        return Buffer.concat(await requestBody.toArray()).toString()
      },
      web: async (duplex) => {
        const { readable, writable } = duplex.web()
        const writer = writable.getWriter()
        await writer.write('hi')
        await writer.close()
        return await new Response(readable).text()
      }
    }
    const tunnel = async ({ headers }: FastifyRequest, reply: FastifyReply): Promise<void> => {
      if (headers.upgrade !== undefined) reply.code(101).header('upgrade', 'x')
      received.resolve(await contents[headers.how as string](reply.duplex))
    }
    app.post('/', { duplex: true }, tunnel)
    app.addHttpMethod('CONNECT')
    app.route({ method: 'CONNECT', url: '*', duplex: true, handler: tunnel })
  })
  let received = resolvers<string>()
  for (const how of ['half', 'web']) {
    for (const head of [`CONNECT a:1 HTTP/1.1\r\nHost: a\r\nHow: ${how}\r\n\r\n`, UPGRADE('/', `How: ${how}\r\n`, 'POST')]) {
      received = resolvers()
      const wire = (await connect()).send(head)
      const { statusCode } = await wire.head(head.slice(0, 7))
      t.equal(statusCode, head.startsWith('CONNECT') ? 200 : 101)
      t.equal(await wire.content(2), 'hi')
      wire.send('first')
      for (let turn = 0; turn < 5; turn++) await immediate()
      wire.send('second').socket.end()
      t.equal(await received.promise, 'firstsecond', head.slice(0, 7) + how)
    }
  }
})

for (const [name, kind] of Object.entries(KINDS)) {
  t.test(`the owner of the request half of an empty body may begin at any time: ${name}`, { skip: kind.http2 }, async (t) => {
    const { connect, logged } = await serveKind(t, kind, (app, routeOptions) => {
      app.route({
        ...routeOptions,
        method: ['GET', 'POST'],
        url: '/',
        duplex: true,
        async handler (request, { duplex }) {
          const { requestBody } = duplex
          const content = request.headers.half === undefined ? () => new Response(duplex.web().readable).text() : () => requestBody.toArray().then(String)
          if (request.headers.half === undefined) t.ok(duplex.web())
          duplex.end('done')
          await Promise.all([finished(duplex), finished(requestBody)])
          received.resolve(await content())
        }
      })
    })
    let received = resolvers<string>()
    const wire = await connect()
    for (const head of ['GET / HTTP/1.1\r\nHost: a\r\n', 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n']) {
      for (const half of ['', 'Half: alone\r\n']) {
        received = resolvers()
        const completed = logged('request completed')
        t.match(await wire.request(head + half + '\r\n'), { body: 'done' })
        t.equal(await received.promise, '')
        await completed
      }
    }
  })
}

t.test('leaving an iterator of the request half loses nothing', async (t) => {
  let leave = (): void => {}
  const { connect } = await serve(t, 'tcp', (app) => {
    app.post('/', { duplex: true }, async (_request, { duplex }) => {
      const iterator = duplex.requestBody.iterator({ destroyOnReturn: false })
      duplex.write((await iterator.next()).value)
      await new Promise<void>((resolve) => { leave = resolve })
      await iterator.return!()
      duplex.requestBody.destroy()
      for await (const chunk of duplex) duplex.write(chunk)
      duplex.end()
    })
  })
  const wire = await connect()
  wire.send(OPEN('/') + chunk('one'))
  await wire.head()
  t.equal(await wire.content(3), 'one')
  wire.send(chunk('two'))
  for (let turn = 0; turn < 10; turn++) await immediate()
  leave()
  wire.send(chunk('three') + '0\r\n\r\n')
  t.equal(await wire.body(), 'twothree')
})
