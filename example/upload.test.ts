import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import Fastify from 'fastify'
import duplex from 'fastify-duplex'
import { upload } from './upload.ts'

const MB = 1024 * 1024

test('an upload', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'upload-'))
  const app = Fastify()
  t.after(async () => {
    await app.close()
    await rm(directory, { recursive: true })
  })
  await app.register(duplex)
  await app.register(upload, { directory, bodyLimit: 4 * MB })

  await t.test('reports its progress, and the digest at the end', async () => {
    const content = randomBytes(2.5 * MB)
    const client = await app.injectDuplex({ method: 'PUT', url: '/files/a.bin' })
    client.write(content.subarray(0, MB))
    assert.deepEqual(JSON.parse(String(await once(client, 'data'))), { received: MB })
    client.write(content.subarray(MB, 2 * MB))
    assert.deepEqual(JSON.parse(String(await once(client, 'data'))), { received: 2 * MB })
    client.end(content.subarray(2 * MB))
    const sha256 = createHash('sha256').update(content).digest('hex')
    assert.deepEqual(JSON.parse(String(await once(client, 'data'))), { received: 2.5 * MB, sha256 })
    await once(client, 'end')
    assert.deepEqual(await readFile(join(directory, 'a.bin')), content)
  })

  await t.test('leaves nothing behind when the client goes away', async () => {
    const client = await app.injectDuplex({ method: 'PUT', url: '/files/b.bin' })
    client.write(Buffer.alloc(MB))
    await once(client, 'data')
    assert.equal((await readdir(directory)).length, 2)
    client.on('error', () => {})
    client.destroy()
    for (let turn = 0; turn < 1000 && (await readdir(directory)).length > 1; turn++) await new Promise(setImmediate)
    assert.deepEqual(await readdir(directory), ['a.bin'])
  })

  await t.test('accepts no body above its limit, and no path as a name', async () => {
    const payload = Buffer.alloc(5 * MB)
    assert.equal((await app.inject({ method: 'PUT', url: '/files/c.bin', payload })).statusCode, 413)
    for (const name of ['..', '.hidden', '..%2Fc', 'c%2F..%2F..%2Fd', '%00']) {
      const { statusCode } = await app.inject({ method: 'PUT', url: `/files/${name}`, payload: 'c' })
      assert.ok(statusCode === 400 || statusCode === 404, `${name}: ${statusCode}`)
    }
    assert.deepEqual(await readdir(directory), ['a.bin'])
  })
})
