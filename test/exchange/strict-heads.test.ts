// What a handler may set that must not go out as it is, and what is added for it: the same on every transport.

import { once } from 'node:events'
import http2 from 'node:http2'
import { text } from 'node:stream/consumers'
import type { FastifyInstance, FastifyReply } from 'fastify'
import t, { type Test } from 'tap'
import { startersOf } from '../support/http1.ts'
import { GET, serve } from '../support/wire.ts'

interface Answer { statusCode: number, fields: Record<string, unknown>, body: string, trailers: Record<string, unknown> }
type Ask = (path: string, method?: 'GET' | 'HEAD') => Promise<Answer>

/** Starts an app, and asks it one request after the other, over one connection if there is any. */
const TRANSPORTS: Record<string, (t: Test, setup: (app: FastifyInstance) => void) => Promise<Ask>> = {
  async 'app.inject' (t, setup) {
    const { app } = await serve(t, 'tcp', setup)
    return async (url, method = 'GET') => {
      const { statusCode, headers, body, trailers } = await app.inject({ url, method })
      return { statusCode, fields: headers, body, trailers }
    }
  },
  async h2c (t, setup) {
    const { port } = await serve(t, 'tcp', setup, { fastify: { http2: true } })
    const session = http2.connect(`http://127.0.0.1:${port}`)
    t.teardown(() => session.destroy())
    return async (path, method = 'GET') => {
      const stream = session.request({ ':path': path, ':method': method })
      let trailers = {}
      stream.on('trailers', (fields) => { trailers = fields })
      const [fields] = await once(stream, 'response')
      return { statusCode: fields[':status'], fields, body: await text(stream), trailers }
    }
  }
}
for (const [name, start] of Object.entries(startersOf(t))) {
  TRANSPORTS[name] = async (t, setup) => {
    const wire = await (await start(t, setup)).connect()
    return (path, method = 'GET') => wire.request(GET(path).replace('GET', method), method)
  }
}

for (const [name, start] of Object.entries(TRANSPORTS)) {
  t.test(`${name}: a content-length that is not one number`, async (t) => {
    let contentLength: unknown
    const ask = await start(t, (app) => {
      const set = (reply: FastifyReply): FastifyReply => reply.header('content-length', contentLength)
      app.get('/', { duplex: true }, async (_request, reply) => { set(reply).duplex.end('ab') })
      app.get('/raw', { duplex: true }, async (_request, reply) => {
        reply.raw.setHeader('Content-Length', contentLength as string)
        reply.duplex.end('ab')
      })
      app.get('/flushed', { duplex: true }, async (_request, reply) => { set(reply).duplex.flushHeaders() })
      app.get('/304', { duplex: true }, async (_request, reply) => { set(reply.code(304)).duplex.end() })
      app.get('/204', { duplex: true }, async (_request, reply) => { set(reply.code(204)).duplex.end() })
      app.get('/204-raw', { duplex: true }, async (_request, reply) => {
        reply.code(204).raw.setHeader('Content-Length', contentLength as string)
        reply.duplex.end()
      })
      app.head('/head', { duplex: true }, async (_request, reply) => { set(reply).duplex.end() })
    })
    for (contentLength of [[2], [2, 2], ['2', '2'], [2, 3], '2, 2', '2,2', '002', '00', ' 2', '2 ', '+2', '-2', '2.0', '2e0', '0x2', 'x', '', 2.5, -1, NaN, Infinity, 1e21, '9007199254740992']) {
      for (const path of ['/', '/flushed', '/304', '/204', ...(name === 'h2c' ? [] : ['/raw'])]) {
        const title = `${path} ${JSON.stringify(contentLength)}`
        const { statusCode, body, fields } = await ask(path)
        t.match({ statusCode, body }, { statusCode: 500, body: /FST_ERR_DUPLEX_FIELD/ }, title)
        t.equal(fields['content-length'], String(body.length), title)
      }
      const { statusCode, fields } = await ask('/head', 'HEAD')
      t.equal(statusCode, 500)
      t.match(fields['content-length'], /^[1-9]\d+$/)
    }
    for (contentLength of [2, '2']) {
      for (const path of ['/', '/raw']) {
        t.match(await ask(path), { statusCode: 200, body: 'ab', fields: { 'content-length': '2', 'transfer-encoding': undefined } })
      }
      t.match(await ask('/304'), { statusCode: 304, fields: { 'content-length': '2' } })
      for (const path of ['/204', '/204-raw']) t.match(await ask(path), { statusCode: 204, fields: { 'content-length': undefined } })
      t.match(await ask('/head', 'HEAD'), { statusCode: 200, fields: { 'content-length': '2' } })
    }
  })

  t.test(`${name}: fields that cannot be sent, set on Node's response`, async (t) => {
    const ask = await start(t, (app) => {
      app.get('/', { duplex: true }, async (_request, reply) => {
        reply.raw.setHeader('Proxy-Connection', 'x')
        reply.duplex.end('ab')
      })
    })
    t.match(await ask('/'), { statusCode: 500, body: /FST_ERR_DUPLEX_OWN_FIELD/, fields: { 'proxy-connection': undefined } })
  })

  t.test(`${name}: a reason phrase that cannot be sent`, { skip: name === 'h2c' && 'HTTP/2 has none' }, async (t) => {
    const ask = await start(t, (app) => {
      const set = ({ raw }: FastifyReply): void => { raw.statusMessage = 'a\r\nSet-Cookie: b=c' }
      app.get('/written', { duplex: true }, async (_request, reply) => {
        set(reply)
        reply.duplex.end('ab')
      })
      app.get('/unattended', { duplex: true }, (_request, reply) => {
        set(reply)
        reply.duplex.end('ab')
      })
      app.get('/yielded', { duplex: true }, async function * (_request, reply) {
        set(reply)
        yield 'ab'
      })
      app.get('/flushed', { duplex: true }, (_request, reply) => {
        set(reply)
        reply.duplex.flushHeaders()
      })
      app.get('/returned', { duplex: true }, async (_request, reply) => {
        set(reply)
        return 'ab'
      })
      app.get('/sent', { duplex: true }, (_request, reply) => {
        set(reply)
        reply.send('ab')
      })
      app.get('/hook', { duplex: true, preHandler: async (_request, reply) => { set(reply) } }, async () => 'ab')
      app.get('/thrown', { duplex: true }, async (_request, reply) => {
        set(reply)
        throw Object.assign(new Error('thrown'), { code: 'THROWN' })
      })
      app.get('/kept', { duplex: true }, async (_request, reply) => {
        reply.raw.statusMessage = 'Gr\xfcn'
        return 'ab'
      })
    })
    const plain = { statusCode: 500, fields: { 'set-cookie': undefined } }
    for (const path of ['/written', '/unattended', '/yielded', '/flushed', '/returned', '/sent', '/hook']) {
      t.match(await ask(path), { ...plain, body: /FST_ERR_DUPLEX_FIELD/ }, path)
    }
    t.match(await ask('/thrown'), { ...plain, body: /THROWN/ })
    t.match(await ask('/kept'), { statusCode: 200, body: 'ab' })
  })

  t.test(`${name}: Trailer announces the trailers that are set before the head`, async (t) => {
    const ask = await start(t, (app) => {
      app.get('/before', { duplex: true }, async (_request, reply) => { reply.duplex.setTrailers({ 'X-A': 1, none: undefined, 'x-b': '2' }).end('ab') })
      app.get('/replaced', { duplex: true }, async (_request, reply) => {
        const { duplex } = reply
        duplex.setTrailers({ 'x-a': 1 }).write('a')
        duplex.setTrailers({ 'x-a': 2, 'x-b': 3 }).end('b')
      })
      app.get('/after', { duplex: true }, async (_request, { duplex }) => {
        duplex.write('ab')
        duplex.setTrailers({ 'x-a': 1 }).end()
      })
      app.get('/none', { duplex: true }, async (_request, reply) => { reply.duplex.setTrailers({ none: undefined }).end('ab') })
    })
    t.match(await ask('/before'), { body: 'ab', fields: { trailer: 'X-A, x-b' }, trailers: { 'x-a': '1', 'x-b': '2' } })
    t.match(await ask('/replaced'), { body: 'ab', fields: { trailer: 'x-a' }, trailers: { 'x-a': '2', 'x-b': '3' } })
    t.match(await ask('/after'), { body: 'ab', fields: { trailer: undefined }, trailers: { 'x-a': '1' } })
    t.match(await ask('/none'), { body: 'ab', fields: { trailer: undefined } })
  })

  t.test(`${name}: trailers that Node would not send over HTTP/2`, async (t) => {
    const ask = await start(t, (app) => {
      app.get('/repeated', { duplex: true }, async (_request, reply) => { reply.duplex.setTrailers({ ETag: ['"1"', '"2"'], etag: '"3"', age: 1 }).end('ab') })
      app.get('/refused', { duplex: true }, async (_request, reply) => { reply.duplex.setTrailers({ 'HTTP2-Settings': 'x' }).end('ab') })
      app.get('/head', { duplex: true }, async (_request, reply) => { reply.header('http2-settings', 'x').duplex.end('ab') })
    })
    t.match(await ask('/repeated'), { body: 'ab', trailers: { etag: /^"1"(, |")/, age: '1' } })
    t.match(await ask('/refused'), { statusCode: 500, body: /FST_ERR_DUPLEX_FIELD/ })
    await ask('/head')
    t.match(await ask('/repeated'), { statusCode: 200 })
  })
}
