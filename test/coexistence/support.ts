// An app with a duplex and an ordinary route, and checks of both that must pass together with any other plugin.

import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import type { ResponseHead } from '../../lib/transfer/head-reader.ts'
import { type Response, type Served, type Wire, chunk, serve } from '../support/wire.ts'

export type Plugin = (app: FastifyInstance) => unknown

/** Runs a test with a plugin that is registered before fastify-duplex, and again with the plugin after it. */
export function testInBothOrders (name: string, plugin: Plugin, routes: Plugin, check: (t: Test, served: Served) => Promise<void>): void {
  t.test(name, async (t) => {
    for (const order of ['before', 'after']) {
      await t.test(`registered ${order} fastify-duplex`, async (t) => {
        const setup = async (app: FastifyInstance): Promise<void> => {
          if (order === 'after') await plugin(app)
          app.post('/upper', { duplex: true }, upper)
          app.get('/plain', async () => 'plain')
          await routes(app)
        }
        await check(t, await serve(t, 'tcp', setup, { before: order === 'before' ? plugin : () => {} }))
      })
    }
  })
}

export async function * upper (request: FastifyRequest, reply: FastifyReply): AsyncGenerator<string> {
  for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
}

/** The head of a chunked request. */
export function open (path: string, fields = ''): string {
  return `POST ${path} HTTP/1.1\r\nHost: a\r\n${fields}Transfer-Encoding: chunked\r\n\r\n`
}

export function get (path: string, fields = ''): string {
  return `GET ${path} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`
}

export function post (path: string, type: string, body: string, fields = ''): string {
  return `POST ${path} HTTP/1.1\r\nHost: a\r\n${fields}Content-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n${body}`
}

/** Sends two words, the second one after the first has come back. @returns the head of the response */
export async function converse (t: Test, wire: Wire, fields = '', path = '/upper'): Promise<ResponseHead> {
  wire.send(open(path, fields) + chunk('one'))
  const head = await wire.head()
  t.equal(head.statusCode, 200)
  t.equal(await wire.content(3), 'ONE')
  wire.send(chunk('two'))
  t.equal(await wire.content(3), 'TWO')
  wire.send('0\r\n\r\n')
  t.equal(await wire.body(), '')
  return head
}

/** Sends a request to the ordinary route. */
export async function checkPlain (t: Test, wire: Wire, fields = ''): Promise<Response> {
  const response = await wire.request(get('/plain', fields))
  t.match(response, { statusCode: 200, body: 'plain' })
  return response
}
