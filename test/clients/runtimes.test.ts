// Bun and Deno, if they are installed: registration warns that the plugin cannot use raw connections there, and the routes
// work as the warning says.

import t from 'tap'
import { run, unlessInstalled } from './support.ts'

const APP = `
  const net = require('node:net')
  const app = require('fastify')({ logger: { level: 'warn', stream: { write: (line) => console.log('warned: ' + JSON.parse(line).msg) } } })
  app.register(require('fastify-duplex'))
  app.after(() => {
    app.post('/upper', { duplex: true }, async function * (request, reply) {
      for await (const chunk of reply.duplex) yield String(chunk).toUpperCase()
    })
    app.get('/attach', { duplex: true, logLevel: 'silent' }, (request, reply) => { reply.code(101).header('upgrade', 'tcp').duplex.end() })
  })
  app.listen({ port: 0, host: '127.0.0.1' }).then(async () => {
    const socket = net.connect(app.server.address().port, '127.0.0.1').setEncoding('latin1')
    let received = ''
    const until = async (text) => {
      while (!received.includes(text)) await new Promise((resolve) => socket.once('data', (data) => { received += data; resolve() }))
    }
    socket.write('POST /upper HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n3\\r\\none\\r\\n')
    await until('ONE')
    console.log('both ways at once')
    socket.write('3\\r\\ntwo\\r\\n0\\r\\n\\r\\n')
    await until('0\\r\\n\\r\\n')
    socket.write('GET /attach HTTP/1.1\\r\\nHost: a\\r\\nConnection: upgrade\\r\\nUpgrade: tcp\\r\\n\\r\\n')
    await until('FST_ERR_DUPLEX_TUNNEL')
    console.log(received.match(/HTTP.1.1 501/)[0])
    const client = await app.injectDuplex({ method: 'POST', url: '/upper' })
    client.end('in memory')
    for await (const chunk of client) console.log(String(chunk))
    process.exit()
  })`

for (const [name, args] of [['bun', ['-e']], ['deno', ['eval', '--ext=cjs']]] as const) {
  t.test(name, { skip: unlessInstalled(name, '--version') }, async (t) => {
    const lines = await run(name, [...args, APP])
    t.match(lines.shift(), new RegExp(`^warned: fastify-duplex cannot take connections: ${name} \\d+\\.\\S+ reads and writes them itself\\. Routes are full duplex`, 'i'))
    t.strictSame(lines, ['both ways at once', 'HTTP/1.1 501', 'IN MEMORY'])
  })
}
