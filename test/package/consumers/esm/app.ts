// An app that uses the installed package, as an ES module.

import { once } from 'node:events'
import Fastify from 'fastify'
import byDefault, { type DuplexHandler, type HttpDuplex, fastifyDuplex } from 'fastify-duplex'
import { type RequestHead, RequestHeadReader } from 'fastify-duplex/transfer'

if (byDefault !== fastifyDuplex) throw new Error('the exports are different functions')

const reader = new RequestHeadReader()
reader.read(Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n'))
const head: RequestHead | null = reader.head
console.log(head?.host)

const upper: DuplexHandler = async function * (request, reply) {
  const stream: HttpDuplex = reply.duplex
  for await (const chunk of stream) yield String(chunk).toUpperCase()
}

const app = Fastify()
await app.register(fastifyDuplex, { idleTimeout: 10_000 })
app.post('/upper', { duplex: true }, upper)
app.route({ method: 'PUT', url: '/upper', duplex: { bodyLimit: 100 }, handler: upper })
try {
  // @ts-expect-error no such option
  app.post('/typo', { duplex: { idleTimeOut: 1 } }, upper)
} catch (error) {
  console.log((error as { code: string }).code)
}

for (const method of ['POST', 'PUT']) {
  const client = await app.injectDuplex({ method, url: '/upper' })
  client.write('one')
  const [chunk] = await once(client, 'data')
  console.log((await client.response).statusCode, String(chunk))
  client.end()
  await once(client, 'end')
}
await app.close()
