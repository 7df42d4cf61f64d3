import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.MiniDFSNNTopology;

/**
 * A real HDFS on loopback: an active and a standby namenode and one datanode, by HTTP and by HTTPS with client certificates.
 *
 * <p>Its argument is a directory, which must be on the class path and hold server.pem, server.key and ca.pem. When all
 * answers, a file "ports" appears there: active HTTP, standby HTTP, active HTTPS, active RPC.
 */
public final class WebHdfs {
  private static final char[] PASSWORD = "changeit".toCharArray();

  public static void main(String[] arguments) throws Exception {
    Path directory = Path.of(arguments[0]);
    trust(directory);

    Configuration conf = new HdfsConfiguration();
    // Pages of listings, and blocks, so small that a test's models have several.
    conf.setInt("dfs.ls.limit", 3);
    conf.setLong("dfs.namenode.fs-limits.min-block-size", 0);
    conf.setLong("dfs.blocksize", 1 << 20);
    conf.setBoolean("dfs.permissions.enabled", true);
    // The service may act for the user alice, and for nobody else.
    conf.set("hadoop.proxyuser.service.users", "alice");
    conf.set("hadoop.proxyuser.service.hosts", "*");
    conf.set("dfs.http.policy", "HTTP_AND_HTTPS");
    conf.set("dfs.namenode.https-address", "127.0.0.1:0");
    conf.set("dfs.datanode.https.address", "127.0.0.1:0");
    conf.setBoolean("dfs.client.https.need-auth", true);
    // No fsync: what is in it is gone with it.
    conf.setBoolean("dfs.namenode.edits.noeditlogchannelflush", true);

    MiniDFSCluster cluster =
        new MiniDFSCluster.Builder(conf, directory.resolve("dfs").toFile())
            .nnTopology(MiniDFSNNTopology.simpleHATopology())
            .numDataNodes(1)
            .build();
    cluster.transitionToActive(0);
    cluster.waitActive(0);
    InetSocketAddress https = cluster.getNameNode(0).getHttpsAddress();
    String ports =
        String.format(
            "%d %d %d %d%n",
            cluster.getNameNode(0).getHttpAddress().getPort(),
            cluster.getNameNode(1).getHttpAddress().getPort(),
            https.getPort(),
            cluster.getNameNodePort(0));
    Path staged = directory.resolve("ports.staged");
    Files.writeString(staged, ports);
    Files.move(staged, directory.resolve("ports"), StandardCopyOption.ATOMIC_MOVE);
    Thread.currentThread().join();
  }

  /** Makes the stores that Hadoop wants of what is in PEM, and the file that tells it so. */
  private static void trust(Path directory) throws Exception {
    CertificateFactory certificates = CertificateFactory.getInstance("X.509");
    Certificate server = certificates.generateCertificate(Files.newInputStream(directory.resolve("server.pem")));
    Certificate ca = certificates.generateCertificate(Files.newInputStream(directory.resolve("ca.pem")));
    String pem = Files.readString(directory.resolve("server.key")).replaceAll("-----[A-Z ]+-----", "");
    byte[] der = Base64.getMimeDecoder().decode(pem);
    KeyStore keys = empty();
    keys.setKeyEntry(
        "server",
        KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der)),
        PASSWORD,
        new Certificate[] {server});
    KeyStore trusted = empty();
    trusted.setCertificateEntry("ca", ca);
    store(keys, directory.resolve("keys.p12"));
    store(trusted, directory.resolve("trusted.p12"));
    Configuration ssl = new Configuration(false);
    for (String kind : new String[] {"keystore", "truststore"}) {
      String file = kind.equals("keystore") ? "keys.p12" : "trusted.p12";
      ssl.set("ssl.server." + kind + ".location", directory.resolve(file).toString());
      ssl.set("ssl.server." + kind + ".password", new String(PASSWORD));
      ssl.set("ssl.server." + kind + ".type", "pkcs12");
    }
    ssl.set("ssl.server.keystore.keypassword", new String(PASSWORD));
    try (OutputStream out = Files.newOutputStream(directory.resolve("ssl-server.xml"))) {
      ssl.writeXml(out);
    }
  }

  private static KeyStore empty() throws Exception {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, PASSWORD);
    return store;
  }

  private static void store(KeyStore store, Path file) throws Exception {
    try (OutputStream out = Files.newOutputStream(file)) {
      store.store(out, PASSWORD);
    }
  }
}
