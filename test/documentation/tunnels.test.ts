import { spawn } from 'node:child_process'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import WebSocket, { WebSocketServer } from 'ws'
import { listen, make, run, skipUnless, testSnippets } from './snippets.ts'

testSnippets('docs/tunnels.md', [
  ["app.post('/attach'", async (code, t) => {
    const app = await make(t)
    await run(code, { app, spawn, pipeline })
    const client = await app.injectDuplex({ method: 'POST', url: '/attach', headers: { upgrade: 'tcp' }, payload: 'body ' })
    client.end('raw')
    t.equal(await text(client), 'body raw')
    t.equal((await app.inject({ method: 'POST', url: '/attach' })).statusCode, 426)
  }, { skip: skipUnless('cat', '--version') }],
  ["app.addHttpMethod('CONNECT')", async (code, t) => {
    const app = await make(t)
    await run(code, { app, net, once, pipeline })
    const upstream = net.createServer({ allowHalfOpen: true }, (socket) => { socket.pipe(socket) })
    t.teardown(() => upstream.close())
    await once(upstream.listen(0, '127.0.0.1'), 'listening')
    const client = await app.injectDuplex({ method: 'CONNECT', url: `127.0.0.1:${(upstream.address() as AddressInfo).port}` })
    client.end('there and back')
    t.equal(await text(client), 'there and back')
  }],
  ["app.get('/ws'", async (code, t) => {
    const app = await make(t)
    const wss = new WebSocketServer({ noServer: true })
    wss.on('connection', (client) => { client.on('message', (message) => client.send(String(message).toUpperCase())) })
    await run(code, { app, wss })
    const client = new WebSocket(`ws://127.0.0.1:${await listen(app)}/ws`)
    await once(client, 'open')
    client.send('abc')
    t.equal(String((await once(client, 'message'))[0]), 'ABC')
    client.close()
    await once(client, 'close')
  }]
])
