// Together with @fastify/reply-from, whose client is undici, as a proxy in front of duplex routes.

import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import replyFrom from '@fastify/reply-from'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { type Served, chunk, serve } from '../support/wire.ts'
import { checkPlain, converse, open, post, upper } from './support.ts'

async function serveBoth (t: Test): Promise<{ upstream: Served, front: Served }> {
  const upstream = await serve(t, 'tcp', (app) => {
    app.post('/upper', { duplex: true }, async function * (request, reply) {
      yield * upper(request, reply)
      reply.duplex.setTrailers({ 'x-sum': '7' })
    })
    app.post('/whole', { duplex: true }, async (request, reply) => ({ length: (await text(reply.duplex)).length }))
    app.post('/broken', { duplex: true }, async (request, reply) => {
      await pipeline(reply.duplex, reply.duplex, { end: false })
      throw new Error('broken')
    })
    app.post('/headless', { duplex: true }, async (request, reply) => { reply.duplex.socket.destroy() })
    app.post('/refused', { duplex: true }, async (request, reply) => reply.code(403).send('no'))
    app.get('/plain', async () => 'plain')
  })
  const front = await serve(t, 'tcp', async (app) => {
    await app.register(replyFrom, { base: `http://127.0.0.1:${upstream.port}` })
    app.get('/plain', async () => 'plain')
    const pass = (request: FastifyRequest, reply: FastifyReply): FastifyReply => reply.from(request.url.replace(/^\/\w+/, ''))
    app.post('/parsed/*', pass)
    app.post('/duplex/*', { duplex: true }, async (request, reply) => {
      request.body = Readable.from(reply.duplex) // not the stream itself, because undici destroys a body after it has read it
      return pass(request, reply)
    })
    await app.register(async (app) => {
      app.removeAllContentTypeParsers()
      app.addContentTypeParser('*', (request, payload, done) => { done(null, payload) })
      app.post('/streamed/*', pass)
    })
  })
  return { upstream, front }
}

t.test('@fastify/reply-from, in front of duplex routes', async (t) => {
  const { upstream, front: { connect } } = await serveBoth(t)

  await t.test('a parsed body', async (t) => {
    const wire = await connect()
    const response = await wire.request(post('/parsed/upper', 'text/plain', 'one'))
    t.match(response, { statusCode: 200, body: 'ONE' })
    t.strictSame(response.trailers, {}, 'reply-from does not forward trailers')
    t.match(await wire.request(post('/parsed/whole', 'application/json', '{"a":1}')), { statusCode: 200, body: '{"length":7}' })
    t.match(await wire.request(post('/parsed/refused', 'text/plain', 'one')), { statusCode: 403, body: 'no' })
    await checkPlain(t, wire)
  })

  for (const path of ['/streamed', '/duplex']) {
    await t.test(`${path}: both bodies are streamed`, async (t) => {
      const wire = await connect()
      const { fields } = await converse(t, wire, 'Content-Type: a/b\r\n', `${path}/upper`)
      // reply-from closes the connection if Node has not read the whole request when the response begins.
      t.equal(fields.connection, path === '/duplex' ? 'keep-alive' : 'close')
      if (path === '/duplex') await checkPlain(t, wire)
      else await wire.ended
    })

    await t.test(`${path}: answers and failures of the upstream`, async (t) => {
      const wire = await connect()
      t.match(await wire.request(post(`${path}/whole`, 'a/b', 'one')), { statusCode: 200, body: '{"length":3}' })
      t.match(await wire.request(post(`${path}/refused`, 'a/b', 'one')), { statusCode: 403, body: 'no' })
      t.match(await wire.request(post(`${path}/headless`, 'a/b', 'one')), { statusCode: 500, body: /UND_ERR_SOCKET/ })
      await checkPlain(t, wire)
      wire.send(post(`${path}/broken`, 'a/b', 'one'))
      t.match(await wire.head(), { statusCode: 200 })
      await t.rejects(wire.body(), { code: 'FST_ERR_DUPLEX_TRUNCATED' }, 'the response is cut off as by the upstream')
      await wire.ended
      await checkPlain(t, await connect())
    })

    for (const way of ['leaves', 'ends its side during the body']) {
      await t.test(`${path}: the client ${way}`, async (t) => {
        const wire = await connect()
        const errored = Promise.race([upstream.logged('request errored'), upstream.logged('stream closed prematurely')])
        wire.send(open(`${path}/upper`, 'Content-Type: a/b\r\n') + chunk('one'))
        await wire.head()
        t.equal(await wire.content(3), 'ONE')
        if (way === 'leaves') wire.socket.destroy()
        else wire.socket.end()
        t.match((await errored).err?.code ?? 'left', /^(left|FST_ERR_DUPLEX_TRUNCATED)$/, 'the upstream notices it')
        await wire.ended
        await checkPlain(t, await connect())
      })
    }
  }
})
