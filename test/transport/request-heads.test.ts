// Requests that are refused for their head, whoever has read it: answered once, and the connection is closed.

import t from 'tap'
import { startersOf } from '../support/http1.ts'
import { GET } from '../support/wire.ts'

const STARTERS = startersOf(t)

for (const [name, start] of Object.entries(STARTERS)) {
  t.test(`${name}: what is behind a framing that is refused is not answered`, async (t) => {
    const { connect } = await start(t, (app) => {
      app.post('/', { duplex: true }, async (_request, reply) => { reply.duplex.end('served') })
      app.get('/next', async () => 'next')
    })
    const rest = '0\r\n\r\n' + GET('/next')
    for (const [statusLine, coding, statusCode] of [
      ['POST / HTTP/1.0', 'chunked\r\nConnection: keep-alive', 400],
      ['POST / HTTP/1.1', ',chunked', 400],
      ['POST / HTTP/1.1', 'gzip, chunked', 501]
    ] as const) {
      for (const inTwo of [false, true]) {
        await t.test(`${statusLine}, ${JSON.stringify(coding)}${inTwo ? ', the rest later' : ''}`, async (t) => {
          const wire = await connect()
          const head = `${statusLine}\r\nHost: a\r\nTransfer-Encoding: ${coding}\r\n\r\n`
          const response = await wire.request(inTwo ? head : head + rest)
          t.match(response, { statusCode, fields: { connection: 'close' } })
          if (inTwo) wire.send(rest)
          await t.rejects(wire.head(), { code: 'FST_ERR_DUPLEX_TRUNCATED' }, 'nothing more is answered')
        })
      }
    }
  })
}

t.test('app.inject(): a framing that is refused', async (t) => {
  const { app } = await STARTERS.tcp(t, (app) => {
    app.post('/', { duplex: true }, async (_request, reply) => { reply.duplex.end('served') })
  })
  const response = await app.inject({ method: 'POST', url: '/', headers: { 'transfer-encoding': 'gzip, chunked' } })
  t.match(response, { statusCode: 501, headers: { connection: 'close' }, body: /FST_ERR_DUPLEX_TRANSFER_CODING/ })
})
